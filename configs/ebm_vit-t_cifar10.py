"""A ViT-Ti with patches of 4 pixels on CIFAR-10, restoring images corrupted in one of five ways.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  python tools/train.py configs/ebm_vit-t_cifar10.py
Hardware: 1 GPU
Time:     not run
Expect:   not run

mmpretrain's CIFAR10 downloads the data into data_root.
"""

_base_ = './ebm_vit-t_shapes.py'

data_root = 'data/cifar10'
model = dict(
    backbone=dict(_delete_=True, type='mmebm.SinCosViT', arch='deit-tiny', img_size=32, patch_size=4, out_type='raw'),
    head=dict(in_channels=192),
    training_step=dict(compile=True),
    # CIFAR-10's own mean and standard deviation; its images are RGB already.
    data_preprocessor=dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=False),
)

rgb_luma = (0.299, 0.587, 0.114)
augmentations = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
]
train_set = dict(type='CIFAR10', data_root=data_root, split='train')
test_set = dict(type='CIFAR10', data_root=data_root, split='test')

train_pipeline = _base_.train_dataloader.dataset.pipeline
train_pipeline[0].corruption.transforms[-1] = [dict(type='mmebm.Grayscale', weights=rgb_luma)]
_base_.train_dataloader.batch_size = 128
_base_.train_dataloader.num_workers = 4
_base_.train_dataloader.dataset = dict(**train_set, pipeline=augmentations + train_pipeline)

held_out = [dataset.pipeline for dataset in _base_.test_dataloader.dataset.datasets]
held_out[-1][0].corruption = dict(type='mmebm.Grayscale', weights=rgb_luma, seed=0)
_base_.val_dataloader.dataset.datasets = [dict(**test_set, indices=200, pipeline=pipeline) for pipeline in held_out]
_base_.test_dataloader.dataset.datasets = [dict(**test_set, pipeline=pipeline) for pipeline in held_out]
# Images from files are BGR.
_base_.test_dataloader.dataset.pipeline[:0] = [dict(type='NumpyToPIL', to_rgb=True), dict(type='PILToNumpy')]

max_epochs = 100
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
auto_scale_lr = dict(base_batch_size=128)
frozen_features = _base_.custom_hooks[-1]
frozen_features.interval = 10
frozen_features.bank.dataset = dict(**train_set, indices=10000, pipeline=[dict(type='PackInputs')])
frozen_features.queries.dataset = dict(**test_set, pipeline=[dict(type='PackInputs')])
