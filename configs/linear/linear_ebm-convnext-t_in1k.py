"""Linear probe of ConvNeXt-T, pretrained by restoration, on ImageNet-1k.

Paper:    the recipe is that of MAE's ViT-B, arXiv 2111.06377
Command:  tools/dist_train.sh configs/linear/linear_ebm-convnext-t_in1k.py 8
Hardware: 8 GPUs, 2048 images each
Time:     not run
Expect:   not run
"""

_base_ = './linear_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm_convnext-t_in1k/epoch_100.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch='tiny',
        gap_before_final_norm=False,
        frozen_stages=4,
        norm_cfg=dict(type='LN2d', eps=1e-6, requires_grad=False),  # frozen_stages leaves out the last norm
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=[dict(type='GlobalAveragePooling'), dict(type='ClsBatchNormNeck', input_features=768)],
    head=dict(in_channels=768),
)
