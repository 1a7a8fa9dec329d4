"""ViT-S/16 on ImageNet-1k, for features: detects and restores shuffled patches, predicts positions and contents.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_vit-s_in1k.py 8
Hardware: 8 GPUs, 512 images each
Time:     not run
Expect:   not run
"""

_base_ = './ebm_vit-b_in1k.py'

# mmpretrain's arch 'small' is another network; this is DeiT's and MAE's ViT-S.
model = dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384))
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(accumulative_counts=1)
