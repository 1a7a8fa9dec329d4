"""Mask R-CNN on COCO from a pretrained plain ViT-B/16, after ViTDet.

Paper:    Exploring Plain Vision Transformer Backbones for Object Detection, arXiv 2203.16527
Command:  tools/dist_train.sh configs/coco/mask-rcnn_ebm-vit-b_coco.py 8
          tools/dist_test.sh configs/coco/mask-rcnn_ebm-vit-b_coco.py CHECKPOINT 8
          another pretraining checkpoint: --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
          random weights: --cfg-options model.backbone.init_cfg=None
Hardware: 8 GPUs, 8 images each
Time:     not run
Expect:   not run

For a data set with other classes in COCO's layout, set its folder, the names of its classes as in its annotations, and
their number:

    --cfg-options data_root=FOLDER/
    model.roi_head.bbox_head.num_classes=2 model.roi_head.mask_head.num_classes=2
    train_dataloader.dataset.dataset.metainfo.classes="(cat,dog)" val_dataloader.dataset.metainfo.classes="(cat,dog)"
    test_dataloader.dataset.metainfo.classes="(cat,dog)"

Large-scale jitter and the 100 epochs are mmdet's (25 of four passes over the data each). Optimiser, layer decay, heads
and neck are ViTDet's. Unlike there, positions are absolute only, since no pretraining checkpoint has parameters of
relative ones; the class token is kept; windows at the border are smaller, not padded; the last norm is kept.
"""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mmdet::common/lsj-100e_coco-instance.py']
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # every image to 1024 x 1024, in training and test
    backbone=dict(
        _delete_=True,
        type='mmebm.WindowedViT',
        arch='base',
        img_size=224,  # of the pretraining: position embeddings are resized to the grid of each batch
        patch_size=16,
        window_size=14,
        num_global=4,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_vit-b_in1k/epoch_100.pth', prefix='backbone.'),
    ),
    neck=dict(_delete_=True, type='mmebm.SimpleFeaturePyramid', in_channels=768, out_channels=256),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (1024, 1024)
train_dataloader = dict(batch_size=8, num_workers=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='mmebm.BackboneLayerDecay',
    paramwise_cfg=dict(
        layer_decay_rate=0.7,
        norm_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)},
    ),
)
# The rate falls after 88 and 96 passes over the data.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=25, milestones=[22, 24], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='mmebm.ProgressHook')]
