"""MAE with a small ViT of 12 blocks at 32 pixels.

Paper:    MAE, arXiv 2111.06377
Command:  python tools/train.py configs/peers/mae_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     16 epochs of 5,000 images: 8 minutes on one CPU core
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 52.0%, kNN 37.1%, fine-tuned 57.8%
          (docs/results.md), with mmpretrain's initial weights: model.backbone.init_cfg=None
"""

_base_ = './mae_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
