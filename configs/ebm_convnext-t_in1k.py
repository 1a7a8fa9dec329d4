"""ConvNeXt-T on ImageNet-1k, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_convnext-t_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm-mask_vit-b_in1k.py'

model = dict(
    # The map, not its mean: gap_before_final_norm would return one token.
    backbone=dict(_delete_=True, type='ConvNeXt', arch='tiny', gap_before_final_norm=False),
    head=dict(in_channels=768),
)

# A mask unit is one position of the last stage, as in SimMIM.
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=32)
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
