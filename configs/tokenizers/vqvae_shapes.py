"""The tokenizer of `cim-*_vit-t_shapes.py`: a small discrete autoencoder, with a token per 4 x 4 pixels.

Paper:    VQ-VAE, arXiv 1711.00937, with the codebook of BEiT v2, arXiv 2208.06366
Command:  python tools/train.py configs/tokenizers/vqvae_shapes.py
Hardware: 1 CPU core
Time:     1 minute on 2 cores
Expect:   a training loss of restored pixels of 0.003
"""

_base_ = 'mmpretrain::_base_/default_runtime.py'

model = dict(type='mmebm.VQVAE', num_embed=512, downsampling=4)
# Images of 0.1 to 0.9, as for DALL-E's tokenizer.
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[-31.875] * 3, std=[318.75] * 3, to_rgb=True)

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmebm.Shapes', size=10000, split='train', pipeline=[dict(type='PackInputs')]),
)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05))
max_epochs = 4
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)

auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(
    logger=dict(interval=100), checkpoint=dict(type='mmebm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3)
)
custom_hooks = [
    dict(type='mmebm.EpochSeedHook'),
    dict(type='mmebm.NonFiniteLossHook'),
    dict(type='mmebm.ProgressHook'),
]
randomness = dict(seed=0)
