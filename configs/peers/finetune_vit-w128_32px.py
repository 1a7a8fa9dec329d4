"""Fine-tuning of a small ViT at 32 pixels, from any method of configs/peers or from random weights.

Paper:    the recipe is MAE's, arXiv 2111.06377, with weaker settings for a small network
Command:  python tools/train.py configs/peers/finetune_vit-w128_32px.py --cfg-options data_root=FOLDER
          model.backbone.init_cfg.checkpoint=FILE; from random weights: model.backbone.init_cfg=None
          FOLDER holds train/ and test/, each with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full

The augmentation is that of pretraining.
"""

_base_ = ['../finetune/finetune_ebm-vit-b_in1k.py', './_base_/shared_32px.py']

checkpoint = 'work_dirs/ebm-patches_vit-w128_32px/epoch_30.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmebm.SinCosViT',
        **(_base_.shared.vit | dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'))),
        out_type='featmap',
    ),
    head=dict(in_channels=128, num_classes=10, init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)]),
    train_cfg=dict(_delete_=True),  # no mixup
)
data_preprocessor = dict(num_classes=10)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
val_dataloader = dict(
    _delete_=True,
    **_base_.shared.test_loader,
    dataset=dict(**_base_.shared.test_set, pipeline=_base_.shared.test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator

optim_wrapper = dict(**_base_.shared.optim_wrapper, paramwise_cfg=dict(layer_decay_rate=0.9))
max_epochs = 20
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
