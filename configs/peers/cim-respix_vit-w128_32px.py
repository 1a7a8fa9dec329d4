"""CIM with a small ViT at 32 pixels, restoring replaced tokens, on equal terms with the EBM config.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER
          python tools/train.py configs/peers/cim-respix_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 329 CPU seconds, plus the tokenizer's
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 45.8%, kNN 34.1% (docs/results.md)

The tokenizer is BEiT's, `tokenizer_32px.py`. The generator is half as wide and deep as the enhancer.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py', './_base_/shared_32px.py']

model = dict(
    type='mmebm.CIM',
    backbone=dict(type='mmebm.SinCosViT', **_base_.shared.vit, out_type='featmap'),
    head=dict(type='mmebm.ResPixHead', in_channels=128, stride=4),
    tokenizer=dict(
        type='mmebm.FrozenTokenizer',
        model=dict(
            type='mmebm.VQVAE',
            num_embed=512,
            downsampling=4,
            init_cfg=dict(type='Pretrained', checkpoint='work_dirs/tokenizer_32px/epoch_30.pth'),
        ),
        mean=[-31.875] * 3,  # of the tokenizer's own data preprocessor
        std=[318.75] * 3,
    ),
    generator=dict(
        type='mmebm.TokenGenerator',
        backbone=dict(
            type='BEiTPretrainViT',
            arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=256),
            img_size=32,
            patch_size=4,
        ),
        vocabulary=512,
    ),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
)

data_root = 'data/images'
train_dataloader = dict(
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    constructor='mmebm.ClipGeneratorApart',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            name: dict(decay_mult=0.0)
            for name in ('pos_embed', 'cls_token', 'mask_token', 'relative_position_bias_table')
        },
    ),
)
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(by_epoch=True, max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
randomness = dict(seed=0, diff_rank_seed=True)  # so that processes draw other masks
