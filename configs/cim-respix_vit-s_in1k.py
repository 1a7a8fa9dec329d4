"""ViT-S/16 on ImageNet-1k, restoring images of which a generator has replaced tokens.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_in1k.py
          tools/dist_train.sh configs/cim-respix_vit-s_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = './cim-respix_vit-b_in1k.py'

# mmpretrain's arch 'small' is another network; this is DeiT's and MAE's ViT-S.
model = dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384))
