"""ViT-S/16 pretrained by restoration, fine-tuned on ImageNet-1k.

Paper:    the recipe is that of MAE's ViT-B, arXiv 2111.06377; MAE has none for ViT-S
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-vit-s_in1k.py 8
Hardware: 8 GPUs, 128 images each
Time:     not run
Expect:   not run
"""

_base_ = './finetune_ebm-vit-b_in1k.py'

checkpoint = 'work_dirs/ebm_vit-s_in1k/epoch_100.pth'
model = dict(backbone=dict(arch='deit-small', init_cfg=dict(checkpoint=checkpoint)), head=dict(in_channels=384))
