"""ViT-B/14 on ImageNet-1k, restoring masked images, starting from DINOv2's weights.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; starting from
          other weights is this project's idea
Command:  tools/dist_train.sh configs/continued/ebm_vit-b-dinov2_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

The weights are DINOv2's as mmpretrain's model index lists them, for images of 518 pixels; position embeddings are
resized. tools/import_weights.py converts the original file, dinov2_vitb14_pretrain.pth, likewise.
"""

_base_ = '../ebm-mask_vit-b_in1k.py'

weights = 'https://mmassets.onedl.ai/mmpretrain/v1.0/dinov2/vit-base-p14_dinov2-pre_3rdparty_20230426-ba246503.pth'
model = dict(
    backbone=dict(
        patch_size=14,
        layer_scale_init_value=1e-5,
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.'),
    ),
)

corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=14)
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
