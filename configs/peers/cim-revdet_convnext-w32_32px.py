"""CIM with a small ConvNeXt at 32 pixels, telling replaced tokens, on equal terms with the EBM config.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER
          python tools/train.py configs/peers/cim-revdet_convnext-w32_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full

The tokenizer is BEiT's, `tokenizer_32px.py`. The generator is that of the ViT's config.
"""

_base_ = './cim-revdet_vit-w128_32px.py'

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', **_base_.shared.convnext, gap_before_final_norm=False),
    head=dict(in_channels=256, stride=8),
)
