"""SparK with a small ConvNeXt at 32 pixels, on equal terms with the EBM config.

Paper:    SparK, arXiv 2301.03580
Command:  python tools/train.py configs/peers/spark_convnext-w32_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full

AdamW as in the other configs, instead of LAMB with increasing weight decay, which is for batches of 4096.
"""

_base_ = [
    'mmpretrain::spark/spark_sparse-convnext-small_16xb256-amp-coslr-800e_in1k.py',
    './_base_/shared_32px.py',
]

model = dict(
    input_size=32,
    downsample_raito=8,  # mmpretrain's spelling
    enc_dec_norm_dim=256,
    backbone=dict(
        _delete_=True,
        type='SparseConvNeXt',
        **_base_.shared.convnext,
        out_indices=(1, 2, 3),  # the decoder has three levels for one position per 8 x 8 pixels
        gap_before_output=False,
    ),
    neck=dict(feature_dim=192, upsample_ratio=8),  # two thirds of the encoder's width, rounded up, as MAE's
)

data_root = 'data/images'
train_dataloader = dict(
    _delete_=True,
    **_base_.shared.train_loader,
    dataset=dict(**_base_.shared.train_set, pipeline=[*_base_.shared.augmentation, dict(type='PackInputs')]),
)
optim_wrapper = dict(
    dtype='bfloat16',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = _base_.shared.param_scheduler
train_cfg = dict(max_epochs=_base_.max_epochs)
default_hooks = _base_.shared.default_hooks
custom_hooks = _base_.shared.custom_hooks
auto_scale_lr = _base_.shared.auto_scale_lr
