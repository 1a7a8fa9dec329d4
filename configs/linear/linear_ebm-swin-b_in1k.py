"""Linear probe of Swin-B, pretrained by restoration, on ImageNet-1k.

Paper:    the recipe is that of MAE's ViT-B, arXiv 2111.06377
Command:  tools/dist_train.sh configs/linear/linear_ebm-swin-b_in1k.py 8
Hardware: 8 GPUs, 2048 images each
Time:     not run
Expect:   not run
"""

_base_ = './linear_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm_swin-b_in1k/epoch_100.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch='base',
        img_size=224,
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=[dict(type='GlobalAveragePooling'), dict(type='ClsBatchNormNeck', input_features=1024)],
    head=dict(in_channels=1024),
)
