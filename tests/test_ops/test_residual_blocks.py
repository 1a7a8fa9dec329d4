"""Which modules are taken for blocks, in backbones of several packages."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from mmpretrain.registry import MODELS

from mmebm.ops.checkpointing import block_checkpointing, residual_blocks


@pytest.mark.parametrize(
    ('backbone', 'block', 'count'),
    [
        (dict(type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=8), 'TransformerEncoderLayer', 12),
        (dict(type='SwinTransformer', arch='tiny', img_size=64), 'SwinBlock', 12),
        (dict(type='ConvNeXt', arch='tiny'), 'ConvNeXtBlock', 18),
        (dict(type='ResNet', depth=50), 'Bottleneck', 16),
        (dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224'), 'Block', 12),
        (
            dict(
                type='mmebm.HuggingFaceBackbone',
                config=dict(model_type='vit', hidden_size=16, num_hidden_layers=3, num_attention_heads=2),
            ),
            'ViTLayer',
            3,
        ),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else None,
)
def test_blocks(backbone, block, count):
    blocks = residual_blocks(MODELS.build(backbone))
    assert [type(module).__name__ for module in blocks] == [block] * count


def test_checkpointing_leaves_nothing_behind():
    block = torch.nn.Sequential(torch.nn.Linear(2, 2))
    before = dict(vars(block))
    with pytest.raises(KeyError), block_checkpointing([block]):
        assert 'forward' in vars(block)
        raise KeyError
    assert vars(block).keys() == before.keys()


def test_a_block_that_returns_a_tuple_is_named():
    class Block(torch.nn.Module):
        def forward(self, x):
            return (x,)

    block = Block()
    with (
        fwAD.dual_level(),
        block_checkpointing([block]),
        pytest.raises(TypeError, match='not a tuple: use micro_batch'),
    ):
        block(fwAD.make_dual(torch.ones(2), torch.ones(2)))
