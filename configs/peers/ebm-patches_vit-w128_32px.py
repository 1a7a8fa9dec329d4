"""Restoration of patches by a small ViT at 32 pixels, the setting of the comparison.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm-patches_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     16 epochs of 5,000 images: 1.2 to 1.3 times MAE's, plus at most half a minute of compiling
Expect:   after that, on CIFAR-10, learning rate 2e-3: linear probe 51.4%, kNN 38.6%, fine-tuned 57.2%
          (docs/results.md), with mmpretrain's initial weights: model.backbone.init_cfg=None
"""

_base_ = ['../ebm-patches_vit-b_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.PatchSubsetViT', **_base_.shared.vit, out_type='raw'),
    head=dict(in_channels=128, grid_size=(8, 8), patch_size=4, embed_dims=96, num_heads=3),
)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(accumulative_counts=1, **_base_.shared.optim_wrapper)
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
test_dataloader = dict(
    _delete_=True,
    **_base_.shared.test_loader,
    dataset=dict(**_base_.shared.test_set, pipeline=_base_.shared.test_pipeline, test_mode=True),
)
