"""SimMIM with a small ViT at 32 pixels, on equal terms with the EBM config.

Paper:    SimMIM, arXiv 2111.09886
Command:  python tools/train.py configs/peers/simmim_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 233 CPU seconds
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 42.4%, kNN 27.2% (docs/results.md)

mmpretrain has SimMIM for Swin only; mmebm.SimMIMViT is the same for the plain ViT. Mask units are two patches wide.
"""

_base_ = ['mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.SimMIMViT', **_base_.shared.vit),
    neck=dict(in_channels=128, encoder_stride=4),
    head=dict(patch_size=4),
)
mask = dict(type='SimMIMMaskGenerator', input_size=32, mask_patch_size=8, model_patch_size=4, mask_ratio=0.6)

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
