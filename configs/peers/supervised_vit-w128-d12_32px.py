"""A small ViT of 12 blocks trained with labels at 32 pixels.

Paper:    the recipe is that of the ViT from scratch in MAE, arXiv 2111.06377
Command:  python tools/train.py configs/peers/supervised_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './supervised_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
