"""MaskFeat with a small ViT at 32 pixels, on equal terms with the EBM config.

Paper:    MaskFeat, arXiv 2112.09133
Command:  python tools/train.py configs/peers/maskfeat_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 297 CPU seconds
Expect:   after that, on CIFAR-10, learning rate 1e-3, three seeds: linear probe 44.0%, kNN 31.0% (docs/results.md)

As in mmpretrain's config, a patch has 2 x 2 cells of histograms, the window is one patch wide, and two fifths of the
patches are masked.
"""

_base_ = ['mmpretrain::maskfeat/maskfeat_vit-base-p16_8xb256-amp-coslr-300e_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.SinCosMaskFeatViT', **_base_.shared.vit),
    neck=dict(in_channels=128),
    target_generator=dict(type='mmebm.HOGOfPatches', patch_size=4, pool=2, gaussian_window=4),
)
mask = dict(type='BEiTMaskGenerator', input_size=8, num_masking_patches=25, min_num_patches=5)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, mask, dict(type='PackInputs')]),
)
optim_wrapper = _base_.shared.pretraining_optim_wrapper
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
