"""A small ViT on the embedded data set, detecting the tokens that a generator has replaced.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_shapes.py
          python tools/train.py configs/cim-revdet_vit-t_shapes.py
          or make cim, for this, its tokenizer and ResPix
Hardware: 2 CPU cores
Time:     6 minutes for make cim
Expect:   AUROC of replaced tokens 0.861 on held-out images; generator's accuracy 9.0% (most frequent token 0.9%);
          linear probe 43.2% (random initialisation 34.2%); one seed, benchmarks/results/cim.json

All sizes and options are this project's choice, not the paper's: docs/cim.md.
"""

_base_ = './cim-respix_vit-t_shapes.py'

model = dict(head=dict(_delete_=True, type='mmebm.RevDetHead', in_channels=64, stride=4, token_stride=4))
val_evaluator = [dict(type='mmebm.TokenMetric')]
test_evaluator = val_evaluator
