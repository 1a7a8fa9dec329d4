"""Restoration of whole images, corrupted in one of five ways, by a small ViT at 32 pixels: for the energy of images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/peers/ebm-nce_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class; the same with tools/test.py and a checkpoint for test/
Hardware: 1 GPU, or some CPU cores
Time:     10 epochs of 10,000 images, schedule of that length: 30 minutes on one CPU core
Expect:   after that, on CIFAR-10, AUROC of the energy: 0.997 (masks), 0.993 (sorting), 1.000 (noise); docs/results.md
"""

_base_ = ['../ebm-mask_vit-b_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='mmebm.SinCosViT', **_base_.shared.vit, out_type='raw'),
    head=dict(in_channels=128),
    nce_weight=0.05,
)
corruptions = [
    dict(type='mmebm.PatchMask', ratio=0.6, patch_size=4),
    dict(type='mmebm.PatchShuffle', patch_size=4, share=0.5),
    dict(type='mmebm.Downsample', factor=4, interpolation='bicubic'),
    dict(type='mmebm.GaussianNoise', sigma=(25.0, 75.0)),
    dict(type='mmebm.Grayscale'),
]
pack = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx', 'corruption'))
# Shuffled patches are the hardest to tell from clean ones, noise is the easiest.
drawn = dict(
    type='RandomChoice',
    transforms=[[corruption] for corruption in corruptions],
    prob=[0.1875, 0.375, 0.1875, 0.0625, 0.1875],
)
pair = dict(type='mmebm.CorruptedPair', corruption=drawn)

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
custom_hooks = [*_base_.shared.custom_hooks, dict(type='mmebm.NotLearningHook')]
auto_scale_lr = _base_.shared.auto_scale_lr
test_dataloader = dict(
    _delete_=True,
    **_base_.shared.test_loader,
    dataset=dict(
        type='mmebm.ConcatDataset',
        pipeline=_base_.shared.test_pipeline,  # of other images, for mmpretrain's inferencers
        datasets=[
            dict(
                **_base_.shared.test_set,
                test_mode=True,
                pipeline=[
                    *_base_.shared.test_pipeline[:-1],
                    dict(type='mmebm.CorruptedPair', corruption=dict(**corruption, seed=0)),
                    pack,
                ],
            )
            for corruption in corruptions
        ],
    ),
)
