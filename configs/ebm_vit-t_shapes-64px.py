"""A small ViT on the embedded data set at 64 pixels: what the downstream tasks on the embedded data start from.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/train.py configs/ebm_vit-t_shapes-64px.py
Hardware: 2 CPU cores
Time:     9 minutes
Expect:   frozen features: kNN 24%, linear probe 47% (random initialisation 21% and 37%)
"""

_base_ = './ebm_vit-t_shapes.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8,
        patch_cfg=dict(kernel_size=16, padding=4),
    ),
    head=dict(in_channels=128),
)

corruptions = [
    dict(type='mmebm.PatchMask', ratio=0.6, patch_size=8, fill=127.5),
    dict(type='mmebm.PatchShuffle', patch_size=8, share=0.3),
    dict(type='mmebm.Downsample', factor=4, interpolation='bilinear'),
    dict(type='mmebm.GaussianNoise', sigma=30.0),
    dict(type='mmebm.Grayscale'),
]
_base_.train_dataloader.dataset.image_size = 64
_base_.train_dataloader.dataset.pipeline[0].corruption.transforms = [[corruption] for corruption in corruptions]
for loader in (_base_.val_dataloader, _base_.test_dataloader):
    for held_out, corruption in zip(loader.dataset.datasets, corruptions, strict=True):
        held_out.image_size = 64
        held_out.pipeline[0].corruption = dict(**corruption, seed=0)
for loader in (_base_.custom_hooks[-1].bank, _base_.custom_hooks[-1].queries):
    loader.dataset.image_size = 64
del loader, held_out, corruption
