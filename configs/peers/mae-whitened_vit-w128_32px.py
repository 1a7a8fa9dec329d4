"""MAE that begins with whitened patches, as the EBM config beside it: what of the difference is due to that.

Paper:    MAE, arXiv 2111.06377; the whitening is ours
Command:  python tools/train.py configs/peers/mae-whitened_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     that of mae_vit-w128_32px.py
Expect:   after 4 epochs, on CIFAR-10, learning rate 2e-3, two seeds: linear probe 46.5%, kNN 33.5%, fine-tuned 54.6%
          (docs/results.md)
"""

_base_ = './mae_vit-w128_32px.py'

custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.PatchWhiteningHook')]
