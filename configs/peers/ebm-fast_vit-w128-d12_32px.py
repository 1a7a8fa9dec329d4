"""Missing contents and lost positions found by a small ViT of 12 blocks, shuffled patches restored in a few images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm-fast_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     not run
Expect:   not run
"""

_base_ = './ebm-fast_vit-w128_32px.py'

model = dict(backbone=dict(arch=dict(num_layers=12)))
