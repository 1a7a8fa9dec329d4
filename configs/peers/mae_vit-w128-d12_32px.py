"""MAE with a small ViT of 12 blocks at 32 pixels.

Paper:    MAE, arXiv 2111.06377
Command:  tools/train.py configs/peers/mae_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './mae_vit-w128_32px.py'

# Its decoder has two thirds of the encoder's depth here, too.
model = dict(backbone=dict(arch=dict(num_layers=12)), neck=dict(decoder_depth=8))
