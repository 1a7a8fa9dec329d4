"""Which patches are kept."""

import pytest
import torch
from mmpretrain.registry import MODELS

from mmebm.models.selfsup.token_dropping import TokenDropping
from mmebm.models.selfsup.training_pair import TrainingPair


def backbone():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    return MODELS.build(dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=4, out_type='raw'))


def masked_images(*masked_patches):
    """Images of 8 x 8 patches, the first n of which are changed in one pixel and channel."""
    clean = torch.zeros(len(masked_patches), 3, 32, 32)
    corrupted = clean.clone()
    for image, count in zip(corrupted, masked_patches, strict=True):
        for patch in range(count):
            image[1, 4 * (patch // 8) + 3, 4 * (patch % 8) + 2] = 1
    return corrupted, clean


def test_shares_of_visible_and_corrupted_patches():
    dropping = TokenDropping(backbone(), patch_size=4, visible=0.25, corrupted=0.125)
    kept = dropping.choose(TrainingPair(*masked_images(40, 60, 4, 0)))
    assert kept.shape == (4, 24)
    assert (kept.diff(dim=1) > 0).all()  # ascending, none twice
    corrupted = [(indices < count).sum().item() for indices, count in zip(kept, (40, 60, 4, 0), strict=True)]
    # 8 corrupted and 16 visible; too few visible ones are made up for by corrupted ones, and the other way round.
    assert corrupted == [8, 20, 4, 0]


def test_each_patch_is_as_likely():
    dropping = TokenDropping(backbone(), patch_size=4, visible=0.25, corrupted=0.25)
    corrupted, clean = masked_images(*[32] * 2000)
    counts = torch.bincount(dropping.choose(TrainingPair(corrupted, clean)).flatten(), minlength=64)
    # 16 of 32, in 2000 images: a mean of 1000 and a standard deviation of 22.
    assert (counts - 1000).abs().max() < 5 * 22


def test_pixels_of_patches():
    dropping = TokenDropping(backbone(), patch_size=4, visible=0.25, corrupted=0.25)
    mask = dropping.pixels(torch.tensor([[0, 9]]), torch.zeros(1, 3, 32, 32))
    assert mask.sum() == 2 * 16
    assert mask[0, :4, :4].all()
    assert mask[0, 4:8, 4:8].all()


def test_network_sees_the_kept_tokens_and_its_class_token_only():
    vit = backbone()
    dropping = TokenDropping(vit, patch_size=4, visible=0.25, corrupted=0.25)
    images = torch.randn(2, 3, 32, 32)
    with dropping.keeping(torch.tensor([[0, 5, 9], [1, 2, 3]]), images):
        assert vit(images)[0].shape == (2, 1 + 3, 16)
    assert vit(images)[0].shape == (2, 1 + 64, 16)


@pytest.mark.parametrize('shares', [dict(visible=0.5, corrupted=0), dict(visible=0.8, corrupted=0.3)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match='visible must be'):
        TokenDropping(backbone(), patch_size=4, **shares)


def test_other_patch_sizes_and_maps_are_refused():
    dropping = TokenDropping(backbone(), patch_size=5, visible=0.25, corrupted=0.25)
    with pytest.raises(ValueError, match='patch_size 5 does not divide'):
        dropping.choose(TrainingPair(*masked_images(3)))
    cnn = MODELS.build(dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])))
    dropping = TokenDropping(cnn, patch_size=4, visible=0.25, corrupted=0.25)
    images = torch.randn(2, 3, 32, 32)
    with dropping.keeping(torch.zeros(2, 3, dtype=torch.long), images), pytest.raises(ValueError, match='not tokens'):
        cnn(images)


def test_refuses_a_network_that_returns_a_map():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    vit = MODELS.build(dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=4, out_type='featmap'))
    with pytest.raises(ValueError, match="token_dropping: .* out_type='raw'"):
        TokenDropping(vit, patch_size=4, visible=0.25, corrupted=0.25)


@pytest.mark.parametrize('patch_size', [0, -4, 4.0, '4'])
def test_refuses_sizes_that_are_none(patch_size):
    with pytest.raises(ValueError, match='token_dropping: patch_size must be a whole number'):
        TokenDropping(backbone(), patch_size, visible=0.25, corrupted=0.25)


def test_refuses_a_patch_size_that_is_not_the_network_s_where_few_tokens_would_hide_it():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    vit = MODELS.build(dict(type='VisionTransformer', arch=arch, img_size=24, patch_size=8, out_type='raw'))
    images = torch.randn(1, 3, 24, 24)
    with TokenDropping(vit, 8, visible=0.25, corrupted=0.25).keeping(torch.tensor([[0, 5]]), images):
        assert vit(images)[0].shape == (1, 1 + 2, 16)
    dropping = TokenDropping(vit, 12, visible=0.25, corrupted=0.25)  # 4 patches, and 6 tokens more
    with dropping.keeping(torch.tensor([[0, 1]]), images), pytest.raises(ValueError, match='patches of patch_size'):
        vit(images)
