"""ViT-B/16 on ImageNet-1k, restoring masked images, starting from MAE's weights.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; starting from
          other weights is this project's idea
Command:  tools/dist_train.sh configs/continued/ebm_vit-b-mae_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

The weights are mmpretrain's MAE of 1600 epochs, as its model index lists them; downloaded when training starts.
"""

_base_ = '../ebm-mask_vit-b_in1k.py'

weights = (
    'https://mmassets.onedl.ai/mmselfsup/1.x/mae/mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
    'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth'
)
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')))
