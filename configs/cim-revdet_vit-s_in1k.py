"""ViT-S/16 on ImageNet-1k, detecting the tokens that a generator has replaced.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_in1k.py
          tools/dist_train.sh configs/cim-revdet_vit-s_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = './cim-respix_vit-s_in1k.py'

model = dict(head=dict(_delete_=True, type='mmebm.RevDetHead', in_channels=384, stride=16, token_stride=16))
test_evaluator = [dict(type='mmebm.TokenMetric')]
