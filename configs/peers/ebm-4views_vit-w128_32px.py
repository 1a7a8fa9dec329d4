"""Restoration of patches, each image four times in a step, so that every patch is seen once and lost once.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/train.py configs/peers/ebm-4views_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     four times that of ebm_vit-w128_32px.py
Expect:   not run
"""

_base_ = './ebm_vit-w128_32px.py'

model = dict(views=4)
