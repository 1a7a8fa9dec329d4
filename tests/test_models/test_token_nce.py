"""Energies of tokens as logits of their patches being corrupted."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import build_ebm, tiny_vit

from mmebm.models.heads.energy_head import EnergyHead
from mmebm.models.losses.noise_contrastive import image_nce, token_accuracy, token_nce
from mmebm.models.patches import changed_patches, patch_grid
from mmebm.models.selfsup.ebm import EBMAlgorithm
from mmebm.models.selfsup.patch_choice import PatchChoice


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
        (15, (80, 160), None),  # ResNet's map of 3 x 5, not 2 x 4 patches behind 7 extra tokens
        (2 * 5, (80, 160), None),  # ConvNeXt's
        (8 + 5, (32, 64), (2, 4)),
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
    pair = model.patch_choice(corrupted, clean)
    _, losses = model._step(model.missing.start(pair.corrupted).requires_grad_(), pair)
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
def test_images_that_are_not_restored(options, monkeypatch):
    """Losses of energies are means over all images, the restoration loss over the first quarter of them."""
    torch.manual_seed(0)
    options |= dict(token_nce_weight=0.7, position_dropping=dict(ratio=0.25), backbone=tiny_vit(img_size=16))
    model = build_ebm(**options, step_size=2.0, restored_share=0.25)
    corrupted, clean = images(8)
    pair = model.patch_choice(corrupted, clean)
    monkeypatch.setattr(PatchChoice, '__call__', lambda *_: pair)
    found = model.loss([corrupted, clean])
    first, rest = pair.take(torch.arange(2)), pair.take(torch.arange(2, 8))
    _, restored = model._step(model.missing.start(first.corrupted).requires_grad_(), first)
    _, others = model._step(model.missing.start(rest.corrupted).requires_grad_(), rest)
    torch.testing.assert_close(found['loss_restoration'], restored['loss'])
    total, logged = model.parse_losses(found)
    assert logged['loss'] is total
    names = {'loss_restoration', 'loss_token_nce', 'loss_position'}
    assert {name for name in found if 'loss' in name} == names
    torch.testing.assert_close(total, sum(found[name] for name in names))
    expected = (2 * restored['loss_token_nce'] + 6 * others['loss_token_nce']) / 8
    torch.testing.assert_close(found['loss_token_nce'], expected)
    # Of the others, without the change of all tokens' energies with the position.
    with model.position_dropping.placing(rest.dropped, torch.zeros(6, 4, 16), rest.kept):
        features = model._features(corrupted[2:], rest.kept)[-1]
    logits = model.position_dropping.logits(features, rest.dropped, rest.kept)
    of_others = model.position_dropping.losses(logits, rest)['loss_position']
    torch.testing.assert_close(found['loss_position'], (2 * restored['loss_position'] + 6 * of_others) / 8)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(restored_share=0.0, token_nce_weight=1.0), 'restored_share must be above 0 and at most 1, not 0.0'),
        (dict(restored_share=0.5), 'restored_share=0.5: the other images train nothing'),
        (dict(restored_share=0.5, token_nce_weight=1.0, micro_batch=2), 'excludes num_steps above 1, micro_batch'),
        (dict(restored_share=0.5, token_nce_weight=1.0, num_steps=2), 'excludes num_steps above 1, micro_batch'),
        (dict(token_nce_weight=1.0, head=dict(kind='quadratic')), 'takes energies as logits, .* never negative'),
        (dict(nce_weight=1.0, head=dict(kind='quadratic')), 'EBMAlgorithm: nce_weight takes energies as logits'),
    ],
)
def test_share_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build_ebm(**options)


def test_clean_images_are_read_as_corrupted_ones_are():
    """The same images have the same energies, though a quarter of the positions is missing."""
    torch.manual_seed(0)
    model = build_ebm(backbone=tiny_vit(img_size=16), position_dropping=dict(ratio=0.25), nce_weight=0.5)
    model.backbone.pos_embed.data.normal_()
    clean = images()[1]
    pair = model.patch_choice(clean, clean)
    energies, predicted = model._read(model.missing.start(clean), pair)
    found = model._losses_of_energies(energies, predicted, pair)['loss_nce']
    logits = energies.sum(dim=1)
    torch.testing.assert_close(found, 0.5 * (F.softplus(logits).mean() + F.softplus(-logits).mean()))
    assert not torch.allclose(logits, model.energy(clean))


def test_images_that_are_as_they_were_are_not_restored():
    torch.manual_seed(0)
    model = build_ebm(backbone=tiny_vit(img_size=16), token_nce_weight=1.0, restored_share=0.25)
    corrupted, clean = images(8)
    corrupted[:5] = clean[:5]
    to_restore, others = model._split(model.patch_choice(corrupted, clean))
    assert torch.equal(to_restore.corrupted, corrupted[5:7])
    assert torch.equal(others.corrupted, torch.cat([corrupted[7:], corrupted[:5]]))


def test_nothing_corrupted_counts_as_nothing_restored():
    model = build_ebm(backbone=tiny_vit(img_size=16), token_nce_weight=1.0, step_size=1.0)
    clean = images()[1]
    found = model.loss([clean, clean])
    assert found['error_ratio'] == found['objective_ratio'] == 1


def test_batch_normalisation_sees_whole_batches():
    backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=2, out_indices=(1,))
    backbone |= dict(strides=(1, 2), dilations=(1, 1))
    with pytest.raises(ValueError, match='batch normalisation would see a batch in two parts'):
        build_ebm(backbone=backbone, head=dict(in_channels=8), token_nce_weight=1.0, restored_share=0.5)
    neck = dict(type='NonLinearNeck', in_channels=16, hid_channels=8, out_channels=16, norm_cfg=dict(type='BN1d'))
    with pytest.raises(ValueError, match='batch normalisation would see a batch in two parts'):
        build_ebm(backbone=tiny_vit(img_size=16), neck=neck, nce_weight=1.0, restored_share=0.5)


class OwnForward(EnergyHead):
    """As a user may write it, without parts."""

    def forward(self, feats, images=None, kept=None):
        return 2 * super().forward(feats, images, kept)


def test_head_with_a_forward_of_its_own():
    model = build_ebm(backbone=tiny_vit(img_size=16), step_size=1.0).eval()
    model.head = OwnForward(16).eval()
    (sample,) = model.predict(images(1)[0])
    assert 'token_energies' not in sample
    torch.testing.assert_close(sample.energies[0], model.energy(images(1)[0])[0].detach())
    with pytest.raises(ValueError, match='in_parts=True, such as EnergyHead, which that of OwnForward does not'):
        EBMAlgorithm(tiny_vit(), OwnForward(16), position_dropping=dict(ratio=0.25))
