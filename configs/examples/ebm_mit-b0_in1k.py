"""mmseg's backbone of SegFormer-B0 on ImageNet-1k, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; SegFormer, arXiv 2105.15203
Command:  tools/dist_train.sh configs/examples/ebm_mit-b0_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = '../ebm-mask_vit-b_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmseg.MixVisionTransformer',
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        qkv_bias=True,
    ),
    head=dict(in_channels=256),
    training_step=dict(compile=False),  # not tried
)

# A mask unit is one position of the last stage, as in SimMIM.
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=32)
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
