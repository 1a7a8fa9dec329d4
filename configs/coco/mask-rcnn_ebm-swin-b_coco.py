"""Mask R-CNN on COCO from a pretrained Swin-B.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/coco/mask-rcnn_ebm-swin-b_coco.py 8
          another data set or checkpoint: as in mask-rcnn_ebm-vit-b_coco.py, but train_dataloader.dataset.metainfo
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run

All but the backbone is mmdet's recipe for Swin-S, 36 epochs. The norms of the first three stages, which pretraining
lacks, are part of the neck.
"""

_base_ = 'mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmebm.SwinStages',
        arch='base',
        img_size=224,
        pad_small_map=True,  # windows of 7 at any image size
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_swin-b_in1k/epoch_100.pth', prefix='backbone.'),
    ),
    neck=[
        dict(type='mmebm.StageNorms', in_channels=[128, 256, 512]),
        dict(type='FPN', in_channels=[128, 256, 512, 1024], out_channels=256, num_outs=5),
    ],
)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='mmebm.ProgressHook')]
