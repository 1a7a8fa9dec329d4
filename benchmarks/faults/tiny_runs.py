"""Configs of trainings of seconds, for scripts that disturb them."""

from benchmarks.output import REPOSITORY

MODEL = """
model = dict(
    training_step=dict(compile=False),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32), img_size=32
    ),
    head=dict(in_channels=16),
)
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
param_scheduler = None
"""

FOLDER = f"""
_base_ = '{REPOSITORY}/configs/ebm-mask_vit-s_in1k.py'
{MODEL}
_base_.train_dataloader.dataset.pipeline[1].scale = 32
train_dataloader = dict(batch_size=50, num_workers=0, drop_last=False)
train_cfg = dict(max_epochs=1)
"""

SHAPES = f"""
_base_ = '{REPOSITORY}/configs/ebm_vit-t_shapes.py'
{MODEL}
train_dataloader = dict(batch_size=16, num_workers=0, dataset=dict(size=256, image_size=32))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=8)
custom_hooks = [dict(type='mmebm.EpochSeedHook'), dict(type='mmebm.NonFiniteLossHook')]
default_hooks = dict(logger=dict(interval=1))
"""
