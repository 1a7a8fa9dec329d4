"""The tokenizer of `cim-*_in1k.py`: a discrete autoencoder of images of 112 pixels, with a token per 8 x 8 pixels.

Paper:    VQ-VAE, arXiv 1711.00937, with the codebook of BEiT v2, arXiv 2208.06366
Command:  python tools/train.py configs/tokenizers/vqvae_in1k.py
          any other folder of images: add --cfg-options data_root=FOLDER
Hardware: 1 GPU, 256 images (its k-means is not shared between processes)
Time:     not run
Expect:   not run

CIM's authors took a trained tokenizer of others. This one needs no download; whether it is as good was not measured.
"""

_base_ = 'mmpretrain::_base_/default_runtime.py'

model = dict(type='mmebm.VQVAE', num_embed=8192, downsampling=8, width=128)
# Images of 0.1 to 0.9, as for DALL-E's tokenizer.
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[-31.875] * 3, std=[318.75] * 3, to_rgb=True)

data_root = 'data/imagenet/train'
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=False,  # EpochSeedHook seeds the workers in every epoch
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmebm.ImageFolder',
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='mmebm'),
            dict(type='RandomResizedCrop', scale=112, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
)
max_epochs = 10
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)

auto_scale_lr = dict(base_batch_size=256)

default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3, every_minutes=30))
custom_hooks = [
    dict(type='mmebm.EpochSeedHook'),
    dict(type='mmebm.NonFiniteLossHook'),
    dict(type='mmebm.ProgressHook'),
]
randomness = dict(seed=0)
