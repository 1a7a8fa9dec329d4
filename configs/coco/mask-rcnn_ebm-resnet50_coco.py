"""Mask R-CNN on COCO from a pretrained ResNet-50.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/coco/mask-rcnn_ebm-resnet50_coco.py 8
          another data set or checkpoint: as in mask-rcnn_ebm-vit-b_coco.py, but train_dataloader.dataset.metainfo
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run

All but the backbone is mmdet's, 12 epochs. As there, the stem, the first stage and the statistics of batch
normalisation are frozen.
"""

_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_resnet50_in1k/epoch_100.pth', prefix='backbone.'),
    ),
)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='mmebm.ProgressHook')]
