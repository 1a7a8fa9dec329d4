"""A small ViT on the embedded data set, detecting the tokens that a generator has replaced.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_shapes.py
          python tools/train.py configs/cim-revdet_vit-t_shapes.py
Hardware: 2 CPU cores
Time:     5 minutes on one of 2 cores, beside another training; the tokenizer 1 minute on 2
Expect:   AUROC of replaced tokens 0.706 on held-out images; generator's accuracy 16% (most frequent token 0.8%)
          (one seed, 2026-11-28)

All sizes and options are this project's choice, not the paper's: docs/cim.md.
"""

_base_ = './cim-respix_vit-t_shapes.py'

model = dict(head=dict(_delete_=True, type='mmebm.RevDetHead', in_channels=64, stride=4, token_stride=4))
val_evaluator = [dict(type='mmebm.TokenMetric')]
test_evaluator = val_evaluator
