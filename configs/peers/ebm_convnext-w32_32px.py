"""Restoration of masked images by a small ConvNeXt at 32 pixels, in the setting of the comparison.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm_convnext-w32_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './ebm_vit-w128_32px.py'

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', **_base_.shared.convnext, gap_before_final_norm=False),
    head=dict(in_channels=256),
    nce_weight=0.0,
)
mask = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=8)  # size and ratio of SparK's
_base_.train_dataloader.dataset.pipeline[-2].corruption = mask
_base_.test_dataloader.dataset = _base_.test_dataloader.dataset.datasets[0]
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**mask, seed=0)
