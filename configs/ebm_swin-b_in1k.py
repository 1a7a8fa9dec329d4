"""Swin-B on ImageNet-1k, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_swin-b_in1k.py 8
Hardware: 8 GPUs, 128 images each, four steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm-mask_vit-b_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='SwinTransformer', arch='base', img_size=224),
    head=dict(in_channels=1024),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)

# A mask unit is one position of the last stage, as in SimMIM.
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=32)
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
