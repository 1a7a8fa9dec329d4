"""Linear probe of a small ViT, pretrained by restoration, on 1,000 labelled images of the embedded data set.

Paper:    the recipe is MAE's, arXiv 2111.06377, with AdamW, since LARS is for large batches
Command:  python tools/train.py configs/ebm-patches_vit-t_shapes-64px.py
          python tools/make_shapes.py data/shapes_imagenet --layout imagenet --image-size 64 --train 1000 --val 1000
          python tools/train.py configs/linear/linear_ebm-vit-t_shapes.py
          from random weights: add --cfg-options model.backbone.init_cfg=None
Hardware: 2 CPU cores
Time:     1 minute on one core
Expect:   see benchmarks/results/downstream.json
"""

_base_ = './linear_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm-patches_vit-t_shapes-64px/epoch_8.pth'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8,
        frozen_stages=4,
        init_cfg=dict(checkpoint=checkpoint),
    ),
    neck=[dict(type='GlobalAveragePooling'), dict(type='ClsBatchNormNeck', input_features=128)],
    head=dict(in_channels=128, num_classes=10),
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

optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0))
max_epochs = 30
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, end=max_epochs, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=50)
