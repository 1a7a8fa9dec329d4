# Shared settings of the methods in configs/peers: images, augmentation, batch, schedule and size of the backbone.
#
# It is one variable, since two base files may not define the same name. The images are a folder with train/ and test/,
# each with one folder per class; labels are read for all methods, and used by `supervised` and `finetune`.
max_epochs = 30
loader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=False,  # EpochSeedHook seeds the workers in every epoch
    collate_fn=dict(type='default_collate'),
)
shared = dict(
    # mmpretrain's plain ViT, initialised as MAE's (Xavier, and sines and cosines as positions); all methods share its
    # weight names under `backbone.`
    vit=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    # A ConvNeXt of four stages whose last map has one position per 8 x 8 pixels.
    convnext=dict(arch=dict(depths=[1, 1, 2, 1], channels=[32, 64, 128, 256]), stem_patch_size=1),
    train_loader=dict(
        **loader,
        drop_last=True,  # so that all steps have the same cost
        sampler=dict(type='DefaultSampler', shuffle=True),
    ),
    test_loader=dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False)),
    train_set=dict(type='mmebm.ImageFolder', data_root='data/images', data_prefix='train', with_label=True),
    test_set=dict(type='mmebm.ImageFolder', data_root='data/images', data_prefix='test', with_label=True),
    augmentation=[
        dict(type='LoadImageFromFile', _scope_='mmebm'),  # mmebm's LoadImage; so mmpretrain's tools find it
        dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0), interpolation='bicubic'),
        dict(type='RandomFlip', prob=0.5),
    ],
    test_pipeline=[
        dict(type='LoadImageFromFile', _scope_='mmebm'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='PackInputs'),
    ],
    optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(lr=1e-3)),  # without a GPU: float32
    # Values of the configs of EBM and MAE, for methods whose own configs have values for other backbones.
    pretraining_optim_wrapper=dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(lr=1e-3, betas=(0.9, 0.95)),
        clip_grad=dict(max_norm=3.0),
        paramwise_cfg=dict(
            _delete_=True,
            norm_decay_mult=0.0,
            bias_decay_mult=0.0,
            flat_decay_mult=0.0,
            custom_keys={name: dict(decay_mult=0.0) for name in ('pos_embed', 'cls_token', 'mask_token')},
        ),
    ),
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=3, end=max_epochs, convert_to_iter_based=True),
    ],
    # Of all learning rates; inherited, it would be that of a config for other data and several GPUs.
    auto_scale_lr=dict(base_batch_size=loader['batch_size']),
    default_hooks=dict(
        logger=dict(interval=50), checkpoint=dict(type='mmebm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3)
    ),
    custom_hooks=[
        dict(type='mmebm.EpochSeedHook'),
        dict(type='mmebm.NonFiniteLossHook'),
        dict(type='mmebm.ProgressHook'),
    ],
)
