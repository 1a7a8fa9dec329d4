"""SimMIM with a small ViT of 12 blocks at 32 pixels.

Paper:    SimMIM, arXiv 2111.09886
Command:  python tools/train.py configs/peers/simmim_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './simmim_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
