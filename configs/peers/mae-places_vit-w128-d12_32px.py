"""MAE with classified places and a small ViT of 12 blocks at 32 pixels.

Paper:    MAE, arXiv 2111.06377; classified places of patches read without position in arXiv 2207.07611 and 2309.03576
Command:  python tools/train.py configs/peers/mae-places_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run
Expect:   not run
"""

_base_ = './mae-places_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
