"""MAE with a small ViT of 12 blocks with whitening initialisation, as in the EBM config.

Paper:    MAE, arXiv 2111.06377; the whitening is ours
Command:  python tools/train.py configs/peers/mae-whitened_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './mae_vit-w128-d12_32px.py'

custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.PatchWhiteningHook')]
