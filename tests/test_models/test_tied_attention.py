"""``TiedAttention``: what each attention layer computes before the first step."""

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models.utils import MultiheadAttention

from mmebm.models.backbones.tied_attention import ATTENTION, TiedAttention

XAVIER = dict(type='Xavier', layer='Linear', distribution='uniform')
TIED = dict(type='mmebm.TiedAttention')


def vit(init_cfg: dict, **options) -> torch.nn.Module:
    arch = dict(embed_dims=128, num_layers=2, num_heads=4, feedforward_channels=256)
    torch.manual_seed(0)
    config = dict(type='mmebm.SinCosViT', arch=arch, img_size=64, patch_size=8, init_cfg=init_cfg, **options)
    backbone = MODELS.build(config)
    backbone.init_weights()
    return backbone


def test_keys_are_the_queries_and_the_output_is_minus_the_values():
    backbone = vit(TIED)
    for layer in backbone.layers:
        queries, keys, values = layer.attn.qkv.weight.view(3, 128, 128)
        assert torch.equal(keys, queries)
        assert torch.equal(layer.attn.proj.weight, -values.T)
        assert not layer.attn.qkv.bias.any() and not layer.attn.proj.bias.any()
    first, second = (layer.attn.qkv.weight for layer in backbone.layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize('options', [{}, dict(query_key=0.2, value_output=1.5)])
def test_variances(options: dict):
    queries, _, values = vit(TIED | options).layers[0].attn.qkv.weight.view(3, 128, 128)
    assert queries.var().item() == pytest.approx(options.get('query_key', 0.7) / 128, rel=0.05)
    assert values.var().item() == pytest.approx(options.get('value_output', 0.7) / 128, rel=0.05)


def test_logit_of_a_token_with_itself():
    attention = vit(TIED).layers[0].attn
    tokens = torch.nn.functional.layer_norm(torch.randn(1000, 128), (128,))
    queries, keys, _ = attention.qkv(tokens).view(1000, 3, 4, 32).unbind(1)
    logits = (queries * keys).sum(dim=-1) / 32**0.5
    assert logits.mean().item() == pytest.approx(0.7 * 32**0.5, rel=0.05)


def test_other_layers_are_xavier_uniform():
    torch.manual_seed(0)
    linear = torch.nn.Linear(128, 256)  # by torch, within 1 / sqrt(128) = 0.088
    TiedAttention()(torch.nn.Sequential(MultiheadAttention(128, 4), linear))
    bound = (6 / (128 + 256)) ** 0.5  # 0.125
    assert bound * 0.99 < linear.weight.abs().max().item() <= bound
    assert not linear.bias.any()


def test_patches_attend_to_their_neighbours():
    """In an image of one colour, by distance: itself before its neighbours; Xavier weights make all alike."""
    shares = {}
    for name, init_cfg in dict(tied=TIED, xavier=XAVIER).items():
        backbone = vit(init_cfg, with_cls_token=False, out_type='raw')
        attention = backbone.layers[0].attn
        tokens = backbone.layers[0].ln1(backbone.patch_embed(torch.zeros(1, 3, 64, 64))[0] + backbone.pos_embed)
        queries, keys, _ = attention.qkv(tokens).view(64, 3, 4, 32).permute(1, 2, 0, 3)
        weights = (queries @ keys.transpose(1, 2) / 32**0.5).softmax(dim=-1).mean(dim=0)
        centre = 8 * 4 + 4
        shares[name] = [weights[centre, centre + step].item() * 64 for step in (0, 1, 2, 3)]
    itself, near, next_, far = shares['tied']
    assert itself > near > next_ > far
    assert near > 1.5  # times an equal share
    assert far < 0.8 * near, shares
    assert min(shares['xavier']) > 0.8, shares
    assert max(shares['xavier']) < 1.2, shares


@pytest.mark.parametrize(
    'config',
    [dict(type='BEiTViT', arch='deit-tiny', img_size=32), dict(type='SwinTransformer', arch='tiny', img_size=64)],
)
def test_other_transformers_of_mmpretrain(config: dict):
    backbone = MODELS.build(config | dict(type='mmpretrain.' + config['type'], init_cfg=TIED))
    backbone.init_weights()
    layers = [layer for layer in backbone.modules() if isinstance(layer, ATTENTION)]
    assert len(layers) == 12
    for layer in layers:
        queries, keys, values = layer.qkv.weight.chunk(3)
        assert torch.equal(keys, queries)
        assert torch.equal(layer.proj.weight, -values.T)


def test_errors():
    with pytest.raises(ValueError, match='TiedAttention: query_key must be a positive number, not 0'):
        vit(TIED | dict(query_key=0))
    # TinyViT's attention has queries, keys and values head by head.
    for config, name in (dict(type='ResNet', depth=18), 'ResNet'), (dict(type='TinyViT', arch='5m'), 'TinyViT'):
        backbone = MODELS.build(config | dict(type=f'mmpretrain.{name}', init_cfg=TIED))
        with pytest.raises(ValueError, match=f"TiedAttention: {name} has none of mmpretrain's attention layers"):
            backbone.init_weights()
