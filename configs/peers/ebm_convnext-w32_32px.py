"""Restoration of masked images by a small ConvNeXt at 32 pixels, in the setting of the comparison.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/train.py configs/peers/ebm_convnext-w32_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = ['../ebm_vit-b_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', **_base_.shared.convnext, gap_before_final_norm=False),
    head=dict(in_channels=256),
)
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=8)  # size and ratio of SparK's
pack = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx', 'corruption'))
pair = dict(type='mmebm.CorruptedPair', corruption=corruption)
held_out = dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0))

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, pair, pack]),
)
optim_wrapper = dict(accumulative_counts=1, **_base_.shared.optim_wrapper)
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
test_dataloader = dict(
    _delete_=True,
    **_base_.shared.test_loader,
    dataset=dict(
        **_base_.shared.test_set, test_mode=True, pipeline=[*_base_.shared.test_pipeline[:-1], held_out, pack]
    ),
)
