"""The tokenizer of `beit_vit-w128_32px.py`: a small discrete autoencoder, with a token per 4 x 4 pixels.

Paper:    VQ-VAE, arXiv 1711.00937, with the codebook of BEiT v2, arXiv 2208.06366
Command:  python tools/train.py configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = ['mmpretrain::_base_/default_runtime.py', './_base_/shared_32px.py']

model = dict(type='mmebm.VQVAE', num_embed=512, downsampling=4)
# The pixel range of images for BEiT's tokenizer.
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[-31.875] * 3, std=[318.75] * 3, to_rgb=True)

data_root = 'data/images'
train_dataloader = dict(
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
)
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(by_epoch=True, max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
