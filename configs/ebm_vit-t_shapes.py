"""A small ViT on the embedded data set, restoring images corrupted in one of five ways, drawn per image.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  make demo
Hardware: 2 CPU cores
Time:     4.4 minutes
Expect:   PSNR of masked images 16.2 -> 22.0 dB, shuffled 18.2 -> 21.5, low resolution 22.6 -> 23.3, noisy 18.8 -> 24.9,
          grey 16.7 -> 18.2 to 18.4; linear probe 44 to 49% (random initialisation 35%);
          benchmarks/results/demo_cpu.json
"""

_base_ = 'mmpretrain::_base_/default_runtime.py'

model = dict(
    type='mmebm.EBMAlgorithm',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        patch_cfg=dict(kernel_size=8, padding=2),  # overlapping patches learn much faster on so few images
        out_type='raw',
    ),
    head=dict(type='mmebm.EnergyHead', in_channels=64),
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], to_rgb=True),
)

corruptions = [
    dict(type='mmebm.PatchMask', ratio=0.6, patch_size=4, fill=127.5),
    dict(type='mmebm.PatchShuffle', patch_size=4, share=0.3),
    dict(type='mmebm.Downsample', factor=4, interpolation='bilinear'),
    dict(type='mmebm.GaussianNoise', sigma=30.0),
    dict(type='mmebm.Grayscale'),
]
meta_keys = ('sample_idx', 'corruption')
train_pipeline = [
    dict(
        type='mmebm.CorruptedPair',
        corruption=dict(type='RandomChoice', transforms=[[corruption] for corruption in corruptions]),
    ),
    dict(type='PackInputs', meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # drawing takes a tenth of a step; on two cores a worker would cost more
    persistent_workers=False,  # in case of workers: EpochSeedHook seeds them in every epoch
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmebm.Shapes', size=10000, split='train', pipeline=train_pipeline),
)

# Every held-out image with each of the five corruptions, the same in every evaluation.
held_out = [
    [
        dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0)),
        dict(type='PackInputs', meta_keys=meta_keys),
    ]
    for corruption in corruptions
]
loader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    **loader,
    dataset=dict(
        type='ConcatDataset',
        datasets=[dict(type='mmebm.Shapes', size=40, split='val', pipeline=pipeline) for pipeline in held_out],
    ),
)
test_dataloader = dict(
    **loader,
    dataset=dict(
        type='mmebm.ConcatDataset',
        # Of other images, for mmpretrain's inferencers.
        pipeline=[dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')],
        datasets=[dict(type='mmebm.Shapes', size=500, split='val', pipeline=pipeline) for pipeline in held_out],
    ),
)
val_evaluator = [dict(type='mmebm.RestorationMetric'), dict(type='mmebm.EnergyMetric')]
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)},
    ),
)
max_epochs = 7
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
    dict(type='mmebm.EnergyLogHook', interval=50),
    dict(type='mmebm.ProgressHook'),
    dict(type='mmebm.NotLearningHook'),
    dict(type='mmebm.RestorationProgressHook'),
    dict(
        type='mmebm.FrozenFeatureHook',
        bank=dict(
            **loader,
            dataset=dict(type='mmebm.Shapes', size=2000, split='train', pipeline=[dict(type='PackInputs')]),
        ),
        queries=dict(
            **loader,
            dataset=dict(type='mmebm.Shapes', size=1000, split='val', pipeline=[dict(type='PackInputs')]),
        ),
        interval=max_epochs,
    ),
]
randomness = dict(seed=0)
