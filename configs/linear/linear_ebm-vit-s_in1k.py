"""Linear probe of ViT-S/16, pretrained by restoration, on ImageNet-1k.

Paper:    the recipe is that of MAE's ViT-B, arXiv 2111.06377
Command:  tools/dist_train.sh configs/linear/linear_ebm-vit-s_in1k.py 8
Hardware: 8 GPUs, 2048 images each
Time:     not run
Expect:   not run
"""

_base_ = './linear_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm_vit-s_in1k/epoch_100.pth'
model = dict(
    backbone=dict(arch='deit-small', init_cfg=dict(checkpoint=checkpoint)),
    neck=[dict(type='GlobalAveragePooling'), dict(type='ClsBatchNormNeck', input_features=384)],
    head=dict(in_channels=384),
)
