"""BEiT with a small ViT at 32 pixels and DALL-E's tokenizer, on equal terms with the EBM config.

Paper:    BEiT, arXiv 2106.08254
Command:  python tools/train.py configs/peers/beit-dalle_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full

The backbone of the other configs: absolute positions and no layer scale, where BEiT's own has relative positions and
layer scale. No stochastic depth and no colour jitter, as in the other configs. The tokenizer's weights are downloaded;
`beit_vit-w128_32px.py` needs no download.
"""

_base_ = ['mmpretrain::beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.BEiTPlainViT', **_base_.shared.vit),
    head=dict(embed_dims=128),
)
mask = dict(type='BEiTMaskGenerator', input_size=8, num_masking_patches=25, min_num_patches=5)
# The tokenizer has a token per 8 x 8 pixels, so it reads the image at twice its size.
enlarge = dict(type='Resize', scale=(64, 64), interpolation='lanczos')
views = dict(type='MultiView', num_views=[1, 1], transforms=[[], [enlarge]])

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(
        **_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, mask, views, dict(type='PackInputs')]
    ),
)
optim_wrapper = _base_.shared.pretraining_optim_wrapper
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
