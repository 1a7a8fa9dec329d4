"""Restoration of patches with four views per image: every patch is once visible and once position-dropped.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm-patches-4views_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     four times that of ebm-patches_vit-w128_32px.py
Expect:   after 16 epochs, on CIFAR-10, learning rate 4e-3, one seed: linear probe 53.3%, kNN 41.0%, fine-tuned 57.5%
          (docs/results.md), with mmpretrain's initial weights: model.backbone.init_cfg=None
"""

_base_ = './ebm-patches_vit-w128_32px.py'

model = dict(views=4)
