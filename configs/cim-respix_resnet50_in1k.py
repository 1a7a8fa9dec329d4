"""ResNet-50 on ImageNet-1k, restoring images of which a generator has replaced tokens.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_in1k.py
          tools/dist_train.sh configs/cim-respix_resnet50_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run

The running statistics of batch normalisation are replaced by those of clean images, since downstream tasks use these.
"""

_base_ = './cim-respix_vit-b_in1k.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=50), head=dict(in_channels=2048, stride=32))
custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.CleanBatchNormHook')]
