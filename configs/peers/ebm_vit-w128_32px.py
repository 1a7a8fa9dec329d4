"""Restoration of masked images by a small ViT at 32 pixels, the setting of the comparison.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/train.py configs/peers/ebm_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     16 epochs of 5,000 images: 8 minutes on one CPU core
Expect:   after these, on CIFAR-10, learning rate 2e-3: linear probe 48.5%, fine-tuned 55.7% (docs/recipe.md)
"""

_base_ = ['../ebm_vit-b_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.SinCosViT', **_base_.shared.vit, out_type='raw'),
    head=dict(
        _delete_=True,
        type='mmebm.ResidualEnergyHead',
        in_channels=128,
        patch_size=4,
        loss=dict(type='mmebm.RestorationLoss', kind='l2', region='corrupted', norm_patch_size=4),
    ),
    step_size=1.0,
    # Masked patches enter before the last block: the others see what an encoder of MAE sees.
    partial=dict(patch_size=4, visible=0.25, corrupted=0.75, entry=3),
)
corruption = dict(type='mmebm.PatchMask', ratio=0.75, patch_size=4, fill=(103.53, 116.28, 123.675))  # the mean colour
pair = dict(type='mmebm.CorruptedPair', corruption=corruption)
pack = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx', 'corruption'))

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
        **_base_.shared.test_set,
        test_mode=True,
        pipeline=[
            *_base_.shared.test_pipeline[:-1],
            dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0)),
            pack,
        ],
    ),
)
