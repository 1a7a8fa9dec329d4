"""Restoration of shuffled patches by a small ConvNeXt at 32 pixels, in the setting of the comparison.

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
    head=dict(in_channels=256, loss=dict(norm_patch_size=8)),
    token_dropping=None,  # of ViTs alone, as positions
    position_dropping=None,
    content_dropping=None,
)
shuffle = dict(type='mmebm.PatchShuffle', patch_size=8, share=0.5)  # a patch is a position of the last map
_base_.train_dataloader.dataset.pipeline[-2].corruption = shuffle
_base_.test_dataloader.dataset = _base_.test_dataloader.dataset.datasets[0]
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**shuffle, seed=0)
