"""How SinCosViT begins."""

import math

import pytest
import torch
from mmengine.model import PretrainedInit
from mmpretrain.models.selfsup import MAEViT

from mmebm.models import SinCosViT
from mmebm.models.peers import SinCosMaskFeatViT

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def initialized(cls, **options):
    torch.manual_seed(0)
    vit = cls(arch=ARCH, img_size=(16, 24), patch_size=4, **options)
    vit.init_weights()
    return vit


def test_positions_are_sines_and_cosines_of_both_coordinates():
    vit = initialized(SinCosViT)
    assert vit.pos_embed.requires_grad
    assert vit.pos_embed.shape == (1, 1 + 4 * 6, 16)
    assert vit.pos_embed[0, 0].eq(0).all()  # of the class token
    at = vit.pos_embed[0, 1 + 2 * 6 + 5]  # row 2, column 5
    # The second of four frequencies is 10000 ** -(1 / 4) = 1 / 10.
    expected = sorted(f(x / 10) for f in (math.sin, math.cos) for x in (2, 5))
    torch.testing.assert_close(at[1::4].sort().values, torch.tensor(expected))


def test_patches_are_embedded_xavier_uniformly():
    weight = initialized(SinCosViT).patch_embed.projection.weight
    bound = math.sqrt(6 / (16 + 3 * 4 * 4))
    assert 0.95 * bound < weight.abs().max() <= bound


def test_begins_as_mae():
    torch.manual_seed(0)
    mae = MAEViT(arch=ARCH, img_size=16, patch_size=4)
    mae.init_weights()
    torch.manual_seed(0)
    ours = SinCosViT(arch=ARCH, img_size=16, patch_size=4)
    ours.init_weights()
    torch.testing.assert_close(ours.pos_embed, mae.pos_embed, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('kind', 'others'),
    [
        ('Pretrained', None),
        ('Pretrained', []),
        ('Pretrained', [dict(type='Constant', layer='Linear', val=1.0)]),
        (PretrainedInit, []),  # alone, mmpretrain's own ViT loses its positions
    ],
)
@pytest.mark.parametrize('cls', [SinCosViT, SinCosMaskFeatViT])
def test_loaded_weights_are_kept(cls, kind, others, tmp_path):
    """Whether ``init_cfg`` is one config, a list of one, or a list of several."""
    source = initialized(cls)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.fill_(3.0)
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in source.state_dict().items()}), tmp_path / 'vit.pth')
    loading = dict(type=kind, checkpoint=str(tmp_path / 'vit.pth'), prefix='backbone.')
    vit = initialized(cls, init_cfg=loading if others is None else [loading, *others])
    assert [name for name, parameter in vit.named_parameters() if not parameter.eq(3.0).all()] == []


def test_without_a_class_token():
    vit = initialized(SinCosViT, with_cls_token=False, out_type='featmap')
    assert vit.pos_embed.shape == (1, 24, 16)
    assert vit(torch.zeros(1, 3, 16, 24))[0].shape == (1, 16, 4, 6)
