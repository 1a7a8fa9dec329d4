"""A small ViT, pretrained by restoration, fine-tuned on 1,000 labelled images of the embedded data set.

Paper:    the recipe is MAE's, arXiv 2111.06377, with weaker settings for few images
Command:  python tools/train.py configs/ebm-patches_vit-t_shapes-64px.py
          python tools/make_shapes.py data/shapes_imagenet --layout imagenet --image-size 64 --train 1000 --val 1000
          python tools/train.py configs/finetune/finetune_ebm-vit-t_shapes.py
          from random weights: add --cfg-options model.backbone.init_cfg=None
Hardware: 2 CPU cores
Time:     2 minutes on one core
Expect:   see benchmarks/results/downstream.json
"""

_base_ = './finetune_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm-patches_vit-t_shapes-64px/epoch_8.pth'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8,
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint=checkpoint),
    ),
    head=dict(in_channels=128, num_classes=10, init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)]),
    train_cfg=dict(_delete_=True),  # no mixup
)
data_preprocessor = dict(num_classes=10, mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0])

data_root = 'data/shapes_imagenet'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
loader = dict(batch_size=50, num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.9))
max_epochs = 30
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=3, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=50)
