"""CIM with a small ViT at 32 pixels, telling replaced tokens, on equal terms with the EBM config.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER
          python tools/train.py configs/peers/cim-revdet_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 340 CPU seconds, plus the tokenizer's
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 45.2%, kNN 33.6% (docs/results.md)

The tokenizer is BEiT's, `tokenizer_32px.py`. The generator is half as wide and deep as the enhancer.
"""

_base_ = './cim-respix_vit-w128_32px.py'

model = dict(head=dict(_delete_=True, type='mmebm.RevDetHead', in_channels=128, stride=4, token_stride=4))
