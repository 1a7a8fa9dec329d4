"""Mask R-CNN on the embedded data set, 64 x 64: mask-rcnn_ebm-vit-b_coco.py in minutes on two cores.

Paper:    Exploring Plain Vision Transformer Backbones for Object Detection, arXiv 2203.16527
Command:  python tools/train.py configs/ebm-patches_vit-t_shapes-64px.py
          python tools/make_shapes.py data/shapes_coco --layout coco --image-size 64 --train 1000 --val 1000
          python tools/train.py configs/coco/mask-rcnn_ebm-vit-t_shapes.py
          from random weights: add --cfg-options model.backbone.init_cfg=None
Hardware: 2 CPU cores
Time:     2.5 minutes on one core
Expect:   see benchmarks/results/downstream.json
"""

_base_ = './mask-rcnn_ebm-vit-b_coco.py'

data_root = 'data/shapes_coco/'
classes = ('arrow', 'crescent', 'cross', 'disc', 'flower', 'heart', 'ring', 'square', 'star', 'triangle')

width = 48
extractor = dict(roi_layer=dict(sampling_ratio=2), out_channels=width, featmap_strides=[2, 4, 8, 16], finest_scale=14)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], pad_size_divisor=64),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8,
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/ebm-patches_vit-t_shapes-64px/epoch_8.pth'),
    ),
    neck=dict(in_channels=128, out_channels=width),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        num_convs=1,
        anchor_generator=dict(scales=[6], strides=[2, 4, 8, 16, 32]),  # 12 pixels and up
    ),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=dict(type='Shared2FCBBoxHead', in_channels=width, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=extractor,
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=32, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(sampler=dict(num=24)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (64, 64)
metainfo = dict(classes=classes)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader,
    batch_size=16,
    dataset=dict(
        times=1,
        dataset=dict(
            data_root=data_root,
            metainfo=metainfo,
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    **loader, batch_size=16, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

max_iters = 300
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9),  # four blocks need less of it than ViT-B's twelve
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, T_max=max_iters),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=16)
