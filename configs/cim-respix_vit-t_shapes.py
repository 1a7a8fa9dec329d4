"""A small ViT on the embedded data set, restoring images of which a generator has replaced tokens.

Paper:    Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  python tools/train.py configs/tokenizers/vqvae_shapes.py
          python tools/train.py configs/cim-respix_vit-t_shapes.py
          or make cim, for this, its tokenizer and RevDet
Hardware: 2 CPU cores
Time:     6 minutes for make cim
Expect:   PSNR of held-out images 17.1 dB corrupted, 18.8 dB restored; linear probe 50.0% (random initialisation 33.8%);
          one seed, benchmarks/results/cim.json

All sizes and options are this project's choice, not the paper's: docs/cim.md.
"""

_base_ = 'mmpretrain::_base_/default_runtime.py'

model = dict(
    type='mmebm.CIM',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        patch_cfg=dict(kernel_size=8, padding=2),  # as in ebm_vit-t_shapes.py
        out_type='featmap',
    ),
    # A window of the size of the image: in small ones, replaced tokens have changed the statistics by which normalised
    # pixels are made pixels again.
    head=dict(type='mmebm.ResPixHead', in_channels=64, stride=4, window=32),
    tokenizer=dict(
        type='mmebm.FrozenTokenizer',
        model=dict(
            type='mmebm.VQVAE',
            num_embed=512,
            downsampling=4,
            init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vqvae_shapes/epoch_4.pth'),
        ),
        mean=[-31.875] * 3,  # of the tokenizer's own data preprocessor
        std=[318.75] * 3,
    ),
    generator=dict(
        type='mmebm.TokenGenerator',
        backbone=dict(
            type='BEiTPretrainViT',
            arch=dict(embed_dims=32, num_layers=2, num_heads=1, feedforward_channels=128),
            img_size=32,
            patch_size=4,
        ),
        vocabulary=512,
        mask_ratio=0.4,
        temperature=2.0,  # of tokens drawn at 1, many look as if nothing had been replaced
    ),
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], to_rgb=True),
)

pipeline = [dict(type='PackInputs', meta_keys=('sample_idx',))]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # on two cores a worker would cost more
    persistent_workers=False,  # in case of workers: EpochSeedHook seeds them in every epoch
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmebm.Shapes', size=10000, split='train', pipeline=pipeline),
)
loader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(**loader, dataset=dict(type='mmebm.Shapes', size=200, split='val', pipeline=pipeline))
test_dataloader = dict(**loader, dataset=dict(type='mmebm.Shapes', size=1000, split='val', pipeline=pipeline))
val_evaluator = [dict(type='mmebm.RestorationMetric'), dict(type='mmebm.TokenMetric')]
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    constructor='mmebm.ClipGeneratorApart',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),  # of the generator, and of all else
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
max_epochs = 2
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)

auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(type='mmebm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    visualization=dict(type='mmebm.RestorationVisualizationHook'),
)
log_processor = dict(type='mmebm.CorruptionLogProcessor')
custom_hooks = [
    dict(type='mmebm.EpochSeedHook'),
    dict(type='mmebm.NonFiniteLossHook'),
    dict(type='mmebm.ProgressHook'),
    dict(type='mmebm.RestorationProgressHook'),
    dict(
        type='mmebm.FrozenFeatureHook',
        bank=dict(**loader, dataset=dict(type='mmebm.Shapes', size=2000, split='train', pipeline=pipeline)),
        queries=dict(**loader, dataset=dict(type='mmebm.Shapes', size=1000, split='val', pipeline=pipeline)),
        interval=max_epochs,
    ),
]
randomness = dict(seed=0, diff_rank_seed=True)  # so that processes draw other masks
