"""A small ViT trained with labels at 32 pixels, on equal terms with the EBM config.

Paper:    the recipe is that of the ViT from scratch in MAE, arXiv 2111.06377
Command:  python tools/train.py configs/peers/supervised_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full

It classifies by the mean of the normalised features, as the frozen features of all methods. No mixup, CutMix or moving
average of the weights, as in the other configs. Weight decay is the recipe's 0.3; the others' is 0.05.
"""

_base_ = ['mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.SinCosViT', **_base_.shared.vit, out_type='featmap'),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=128),
    train_cfg=dict(_delete_=True),
    init_cfg=None,
)
data_preprocessor = dict(num_classes=10)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(**_base_.shared.optim_wrapper, clip_grad=dict(max_norm=3.0))
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
