"""A small ViT on the embedded data set, detecting the tokens that a generator has replaced.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_shapes.py
          python tools/train.py configs/cim-revdet_vit-t_shapes.py
Hardware: 2 CPU cores
Time:     not run in full
Expect:   not run in full

All sizes and options are this project's choice, not the paper's: docs/cim.md.
"""

_base_ = './cim-respix_vit-t_shapes.py'

model = dict(head=dict(_delete_=True, type='mmebm.RevDetHead', in_channels=64, stride=4, token_stride=4))
val_evaluator = [dict(type='mmebm.TokenMetric')]
test_evaluator = val_evaluator
