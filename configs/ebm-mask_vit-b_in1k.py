"""ViT-B/16 on ImageNet-1k, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm-mask_vit-b_in1k.py 8
          any other folder of images: add --cfg-options data_root=FOLDER
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

Optimiser, batch and augmentation are those of mmpretrain's MAE, which this config inherits; only crops are resized by
OpenCV instead of Pillow, faster and without antialiasing. Gradients are clipped, and the warm-up takes 10 of 100
epochs, MAE's 40 of 300. The strength of the corruption and the kind of energy are this project's choice, not the
paper's.
"""

_base_ = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'

model = dict(
    _delete_=True,
    type='mmebm.EBMAlgorithm',
    backbone=dict(type='mmebm.SinCosViT', arch='base', img_size=224, patch_size=16, out_type='raw'),
    head=dict(type='mmebm.EnergyHead', in_channels=768),
    training_step=dict(compile=True),
)

# Any folder, nested or not; labels are not needed.
data_root = 'data/imagenet/train'
test_data_root = 'data/imagenet/val'
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=16)

# mmebm's LoadImage; by this name mmpretrain's tools find it.
load_image = dict(type='LoadImageFromFile', _scope_='mmebm')
train_pipeline = [
    load_image,
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmebm.CorruptedPair', corruption=corruption),
    dict(type='PackInputs', meta_keys=('img_path', 'sample_idx', 'corruption')),
]
test_pipeline = [
    load_image,
    dict(type='ResizeEdge', scale=256, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0)),
    dict(type='PackInputs', meta_keys=('img_path', 'sample_idx', 'corruption')),
]
train_dataloader = dict(
    batch_size=256,
    persistent_workers=False,  # EpochSeedHook seeds the workers in every epoch
    collate_fn=dict(_delete_=True, type='default_collate'),  # inherited, it would get mmpretrain's scope as an argument
    dataset=dict(_delete_=True, type='mmebm.ImageFolder', data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmebm.ImageFolder', data_root=test_data_root, pipeline=test_pipeline, test_mode=True),
)
test_evaluator = [dict(type='mmebm.RestorationMetric'), dict(type='mmebm.EnergyMetric')]
test_cfg = dict()

optim_wrapper = dict(
    dtype='bfloat16',
    accumulative_counts=2,
    clip_grad=dict(max_norm=3.0),
    # No weight decay of norms, biases, step size, position embeddings and class token, under any backbone's names.
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'position_embeddings': dict(decay_mult=0.0),  # HuggingFace's
            'cls_token': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.0001, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=90, by_epoch=True, begin=10, end=100, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100)
resume = False  # inherited as True, which would silently resume from any checkpoint in work_dir; use --resume
default_hooks = dict(
    checkpoint=dict(type='mmebm.AtomicCheckpointHook', every_minutes=30),
    visualization=dict(type='mmebm.RestorationVisualizationHook'),
)
custom_hooks = [
    dict(type='mmebm.EpochSeedHook'),
    dict(type='mmebm.NonFiniteLossHook'),
    dict(type='mmebm.EnergyLogHook', interval=100),
    dict(type='mmebm.ProgressHook'),
    dict(type='mmebm.NotLearningHook'),
    dict(type='mmebm.RestorationProgressHook', interval=10),
]
log_processor = dict(type='mmebm.CorruptionLogProcessor')
