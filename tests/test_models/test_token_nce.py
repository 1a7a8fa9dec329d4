"""Energies of tokens as logits of their patches being corrupted."""

import math

import pytest
import torch
from tiny import build_ebm, tiny_vit

from mmebm.models.losses.noise_contrastive import image_nce, token_accuracy, token_nce
from mmebm.models.patches import changed_patches, patch_grid


def softplus(value):
    return math.log1p(math.exp(value))


def test_losses_in_closed_form():
    energies = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    changed = torch.tensor([[True, False, False], [True, False, True]])
    of_first = [softplus(-2.0), softplus(-1.0), softplus(0.5)]
    of_second = [softplus(0.0), softplus(3.0), softplus(2.0)]
    found = token_nce(energies, changed)
    torch.testing.assert_close(found, torch.tensor(sum(of_first + of_second) / 6))
    assert token_accuracy(energies, changed) == pytest.approx(2 / 6)
    counts = torch.tensor([[True, True, False], [False, False, True]])
    found = token_nce(energies, changed, counts)
    torch.testing.assert_close(found, torch.tensor((sum(of_first[:2]) / 2 + of_second[2]) / 2))
    assert token_accuracy(energies, changed, counts) == pytest.approx(2 / 3)
    found = image_nce(torch.tensor([0.0, 1.0]), torch.tensor([2.0]))
    torch.testing.assert_close(found, torch.tensor((softplus(0.0) + softplus(1.0)) / 2 + softplus(-2.0)))


@pytest.mark.parametrize(
    ('num_tokens', 'size', 'grid'),
    [
        (64, (32, 32), (8, 8)),
        (65, (32, 32), (8, 8)),
        (196 + 5, (224, 224), (14, 14)),  # a class and four register tokens
        (49, (224, 224), (7, 7)),
        (8, (32, 64), (2, 4)),
        (1, (32, 32), (1, 1)),
        (100, (32, 32), None),
    ],
)
def test_grid_of_tokens(num_tokens, size, grid):
    assert patch_grid(num_tokens, size) == grid


def test_changed_patches():
    clean = torch.zeros(2, 3, 8, 12)
    corrupted = clean.clone()
    corrupted[0, 2, 5, 3] = 1  # second row, first column
    corrupted[1, 0, 0, 11] = -1
    expected = [[False, False, False, True, False, False], [False, False, True, False, False, False]]
    assert changed_patches(corrupted, clean, (2, 3)).tolist() == expected


def images(num_images=2):
    """Pairs whose first 5 of 16 patches are changed."""
    torch.manual_seed(0)
    clean = torch.randn(num_images, 3, 16, 16)
    corrupted = clean.clone()
    corrupted[:, :, :4] += 1
    corrupted[:, :, 4, 0] += 1
    return corrupted, clean


def test_loss_of_the_algorithm():
    """The class token has an energy and no label; dropped positions do not count."""
    torch.manual_seed(0)
    model = build_ebm(backbone=tiny_vit(img_size=16), token_nce_weight=0.7, position_dropping=dict(ratio=0.25))
    corrupted, clean = images()
    pair = model._training_pair(corrupted, clean)
    _, losses = model._step(model._start(pair).requires_grad_(), pair)
    with model.position_dropping.placing(pair.dropped, torch.zeros(2, 4, 16), None):
        energies = model.head.token_energies(model.backbone(corrupted))
    assert energies.shape == (2, 17)
    terms = [
        [softplus(-value if patch < 5 else value) for patch, value in enumerate(row[1:]) if patch not in dropped]
        for row, dropped in zip(energies.tolist(), pair.dropped.tolist(), strict=True)
    ]
    assert [len(row) for row in terms] == [12, 12]
    expected = 0.7 * sum(sum(row) / 12 for row in terms) / 2
    torch.testing.assert_close(losses['loss_token_nce'], torch.tensor(expected))


def test_maps_of_a_cnn():
    backbone = dict(
        type='ConvNeXt', arch=dict(depths=[2, 2], channels=[8, 16]), out_indices=(1,), gap_before_final_norm=False
    )
    model = build_ebm(backbone=backbone, token_nce_weight=1.0)
    losses = model.loss([*images()])  # 2 x 2 features of 8 pixels
    assert 0.6 < losses['loss_token_nce'] < 0.8  # energies start near zero
    assert losses['token_accuracy'] * 8 in range(9)  # of two images


@pytest.mark.parametrize('head', [dict(over='pooled'), dict(in_channels=[16, 16])])
def test_no_energy_for_each_token(head):
    with pytest.raises(ValueError, match='token_nce_weight needs a head with an energy for each token of one stage'):
        build_ebm(backbone=tiny_vit(img_size=16), head=head, token_nce_weight=1.0)


def test_statistics_are_means_over_steps():
    torch.manual_seed(0)
    model = build_ebm(backbone=tiny_vit(img_size=16), token_nce_weight=1.0, num_steps=3)
    assert 0 <= model.loss([*images()])['token_accuracy'] <= 1


def test_sum_of_token_energies_is_the_energy():
    model = build_ebm(backbone=tiny_vit(img_size=16))
    feats = (torch.randn(2, 17, 16),)
    torch.testing.assert_close(model.head(feats), model.head.token_energies(feats).sum(dim=1))


def test_low_memory_is_refused():
    with pytest.raises(ValueError, match='low_memory=True excludes nce_weight and token_nce_weight'):
        build_ebm(token_nce_weight=1.0, low_memory=True)


def test_negative_weight():
    with pytest.raises(ValueError, match='token_nce_weight must be a number of at least 0, not -1'):
        build_ebm(token_nce_weight=-1)


@pytest.mark.parametrize('options', [dict(), dict(token_dropping=dict(patch_size=4, visible=0.5, corrupted=0.25))])
def test_images_that_are_not_restored(options):
    """Losses of energies are means over all images, the restoration loss over the first quarter of them."""
    torch.manual_seed(0)
    options |= dict(token_nce_weight=0.7, position_dropping=dict(ratio=0.25), backbone=tiny_vit(img_size=16))
    model = build_ebm(**options, step_size=2.0, restored_share=0.25)
    corrupted, clean = images(8)
    pair = model._training_pair(corrupted, clean)
    model._training_pair = lambda *_: pair
    found = model.loss([corrupted, clean])
    _, restored = model._step(model._start(pair.part(0, 2)).requires_grad_(), pair.part(0, 2))
    _, others = model._step(model._start(pair.part(2, None)).requires_grad_(), pair.part(2, None))
    torch.testing.assert_close(found['loss'], restored['loss'])
    expected = (2 * restored['loss_token_nce'] + 6 * others['loss_token_nce']) / 8
    torch.testing.assert_close(found['loss_token_nce'], expected)
    # Of the others, without the change of all tokens' energies with the position.
    with model.position_dropping.placing(pair.dropped[2:], torch.zeros(6, 4, 16), pair.part(2, None).kept):
        features = model._features(corrupted[2:], pair.part(2, None).kept)[-1]
    logits = model.position_dropping.logits(features, pair.dropped[2:], pair.part(2, None).kept)
    of_others = model.position_dropping.losses(logits, pair.dropped[2:], pair.part(2, None).kept)['loss_position']
    torch.testing.assert_close(found['loss_position'], (2 * restored['loss_position'] + 6 * of_others) / 8)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(restored_share=0.0, token_nce_weight=1.0), 'restored_share must be above 0 and at most 1, not 0.0'),
        (dict(restored_share=0.5), 'with restored_share=0.5, the other images train nothing'),
    ],
)
def test_share_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build_ebm(**options)
