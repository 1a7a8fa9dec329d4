"""Restoration of patches by a small ViT of 12 blocks with whitening initialisation: for short schedules.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; the whitening is ours
Command:  python tools/train.py configs/peers/ebm-patches-whitened_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     that of ebm-patches_vit-w128-d12_32px.py
Expect:   after 4 epochs, on CIFAR-10, learning rate 2e-3, one seed: linear probe 49.5%, kNN 34.1%, fine-tuned 55.3%
          (docs/results.md), with mmpretrain's initial weights: model.backbone.init_cfg=None
"""

_base_ = './ebm-patches_vit-w128-d12_32px.py'

custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.PatchWhiteningHook')]
