"""MAE with a small ViT at 32 pixels, on equal terms with the EBM config.

Paper:    MAE, arXiv 2111.06377
Command:  python tools/train.py configs/peers/mae_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 223 CPU seconds
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 47.5%, kNN 33.2%, fine-tuned 52.6%
          (docs/results.md)

The decoder has two thirds of the encoder's width and depth, rounded up, as MAE's for ViT-B, with heads of the same
width. Initial weights and clipping are those of the other configs; MAE's own config has the same weights, and does not
clip.
"""

_base_ = ['mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py', './_base_/shared_32px.py']

model = dict(
    backbone=dict(_delete_=True, type='MAEViT', **_base_.shared.vit, mask_ratio=0.75),
    neck=dict(
        num_patches=64,
        patch_size=4,
        embed_dim=128,
        decoder_embed_dim=96,
        decoder_depth=3,
        decoder_num_heads=3,
        init_cfg=_base_.model.init_cfg,
    ),
    head=dict(patch_size=4),
    init_cfg=None,
)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(**_base_.shared.optim_wrapper, clip_grad=dict(max_norm=3.0))
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
resume = False  # inherited as True, which would resume from any checkpoint in work_dir
