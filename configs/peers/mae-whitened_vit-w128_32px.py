"""MAE with whitening initialisation, as in the EBM config, to separate its effect from that of the method.

Paper:    MAE, arXiv 2111.06377; the whitening is ours
Command:  python tools/train.py configs/peers/mae-whitened_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     that of mae_vit-w128_32px.py
Expect:   after 4 epochs, on CIFAR-10, learning rate 2e-3, two seeds: linear probe 46.5%, kNN 33.5%, fine-tuned 54.6%
          (docs/results.md), with mmpretrain's initial weights: model.backbone.init_cfg=None
"""

_base_ = './mae_vit-w128_32px.py'

custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.PatchWhiteningHook')]
