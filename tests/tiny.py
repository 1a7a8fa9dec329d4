"""The smallest models that are made of the real parts, for tests."""

from pathlib import Path

from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[1]

# Text of a config: a folder's own, with a ViT of one block at 32 pixels, in batches of two.
FOLDER_CONFIG = f"""
_base_ = '{ROOT}/configs/ebm_vit-t_folder.py'
model = dict(
    training_step=dict(compile=False),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32), img_size=32
    ),
    head=dict(in_channels=16),
)
train_dataloader = dict(batch_size=2, num_workers=0)
"""

# Options of a model that say how its training step is computed.
STEP_OPTIONS = ('compile', 'micro_batch', 'low_memory', 'attention')


def tiny_vit(img_size=8, patch_size=4, **options):
    """Config of a ViT of two blocks, 16 wide."""
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    sizes = dict(img_size=img_size, patch_size=patch_size)
    return dict(type='VisionTransformer', arch=arch, out_type='raw', **sizes) | options


def grouped(options):
    """Options of a model, those of its training step in their group."""
    step = {name: value for name, value in options.items() if name in STEP_OPTIONS}
    others = {name: value for name, value in options.items() if name not in STEP_OPTIONS}
    return others | (dict(training_step=step) if step else {})


def build_ebm(backbone=None, head=None, **options):
    """An ``EBMAlgorithm`` on a tiny ViT, or another backbone 16 wide; the step's options need no group."""
    config = dict(type='mmebm.EBMAlgorithm', backbone=backbone or tiny_vit())
    head = dict(type='mmebm.EnergyHead', in_channels=16) | (head or {})
    return MODELS.build(config | dict(head=head) | grouped(options))
