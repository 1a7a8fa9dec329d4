"""A ViT-Ti with patches of 4 pixels on CIFAR-10, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/train.py configs/ebm_vit-t_cifar10.py
Hardware: 1 GPU
Time:     not run
Expect:   not run

mmpretrain's CIFAR10 downloads the data into data_root.
"""

_base_ = './ebm_vit-t_shapes.py'

model = dict(
    backbone=dict(arch='deit-tiny', patch_size=4),
    head=dict(in_channels=192),
    # CIFAR-10's own mean and deviation; its images are RGB already.
    data_preprocessor=dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=False),
)
