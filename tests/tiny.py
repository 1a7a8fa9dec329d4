"""The smallest models that are made of the real parts, for tests."""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from mmebm.registry import MODELS as OURS

ROOT = Path(__file__).parents[1]

# Text of a config: a folder's own, with a ViT of one block at 32 pixels, in batches of two.
FOLDER_CONFIG = f"""
_base_ = '{ROOT}/configs/ebm-mask_vit-s_in1k.py'
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


@OURS.register_module()
class ColorTokenizer(nn.Module):
    """A tokenizer that needs no training: a token is the mean colour of a square, at three levels per channel.

    Of images in 0 to 1; it decodes to squares of one colour.
    """

    vocabulary = 27

    def __init__(self, stride=4):
        super().__init__()
        self.stride = stride
        self.levels = nn.Parameter(torch.tensor([1 / 6, 1 / 2, 5 / 6]))

    def tokens(self, images):
        levels = (F.avg_pool2d(images, self.stride) * 3).long().clamp(0, 2)  # (N, 3, h, w)
        return (levels * torch.tensor([9, 3, 1]).view(3, 1, 1)).sum(dim=1)

    def decode(self, tokens):
        levels = torch.stack([tokens // 9, tokens // 3 % 3, tokens % 3], dim=1)
        return F.interpolate(self.levels[levels], scale_factor=self.stride, mode='nearest')


def tiny_cim(task='revdet', tokenizer=None, generator=None, head=None, **options):
    """Config of a ``CIM`` of images of 16 pixels and tokens of 4, with an enhancer 16 wide."""
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    backbone = dict(type='BEiTPretrainViT', arch=arch, img_size=16, patch_size=4)
    heads = dict(
        respix=dict(type='mmebm.ResPixHead', in_channels=16, stride=4),
        revdet=dict(type='mmebm.RevDetHead', in_channels=16, stride=4, token_stride=4),
    )
    frozen = dict(type='mmebm.FrozenTokenizer', model=ColorTokenizer(), mean=[0.0] * 3, std=[255.0] * 3)
    return (
        dict(
            type='mmebm.CIM',
            backbone=tiny_vit(img_size=16, out_type='featmap'),
            head=heads[task] | (head or {}),
            tokenizer=frozen | (tokenizer or {}),
            generator=dict(type='mmebm.TokenGenerator', backbone=backbone, vocabulary=27) | (generator or {}),
            data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
        )
        | options
    )


def save_cim(path, size=16, **options):
    """Save a ``CIM`` of images of ``size`` pixels as mmengine does, with its config; returns it."""
    model = tiny_cim(tokenizer=dict(model=dict(type='mmebm.ColorTokenizer')), **options)
    model['backbone']['img_size'] = model['generator']['backbone']['img_size'] = size
    torch.manual_seed(0)
    built = MODELS.build(copy.deepcopy(model))
    built.init_weights()
    torch.save(dict(state_dict=built.state_dict(), meta=dict(cfg=Config(dict(model=model)).pretty_text)), path)
    return built.eval()


def save_ebm(path, step_size=0.1):
    """Save an ``EBMAlgorithm`` on images of 32 pixels as mmengine does, with its config; returns both."""
    pipeline = [
        dict(type='LoadImageFromFile', _scope_='mmebm'),
        dict(type='ResizeEdge', scale=32, edge='short'),
        dict(type='CenterCrop', crop_size=32),
        dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.PatchMask', ratio=0.5, patch_size=4, seed=0)),
        dict(type='PackInputs'),
    ]
    model = dict(
        type='mmebm.EBMAlgorithm',
        backbone=tiny_vit(img_size=32),
        head=dict(type='mmebm.EnergyHead', in_channels=16),
        step_size=step_size,
        data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True),
    )
    dataset = dict(type='mmebm.ImageFolder', data_root='none', pipeline=pipeline)
    config = Config(dict(default_scope='mmpretrain', model=model, test_dataloader=dict(dataset=dataset)))
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    torch.save(dict(state_dict=built.state_dict(), meta=dict(cfg=config.pretty_text, mmebm=dict(images=5))), path)
    return built, config
