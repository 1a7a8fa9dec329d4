"""Restoration of whole images by a small ViT of 12 blocks at 32 pixels.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     not run
Expect:   not run
"""

_base_ = './ebm_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
