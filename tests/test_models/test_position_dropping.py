"""Patches without position, and the energy by which restoration finds it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import build_ebm, tiny_vit

from mmebm.models.selfsup.training_pair import TrainingPair


def parts(ratio=0.25):
    """A ViT of 16 patches in evaluation mode, and what drops positions of it."""
    torch.manual_seed(0)
    model = build_ebm(backbone=tiny_vit(img_size=16), position_dropping=dict(ratio=ratio))
    model.backbone.eval()
    return model.backbone, model.position_dropping


def first_inputs(vit, images):
    """The tokens that the first block reads."""
    seen = []
    hook = vit.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    vit(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize('kept', [None, torch.tensor([[2, 5, 7, 15], [0, 1, 3, 8]])])
def test_dropped_tokens_are_patch_embeddings_alone(kept):
    vit, dropping = parts()
    images = torch.randn(2, 3, 16, 16)
    dropped = torch.tensor([[0, 2], [1, 3]])
    own = dropped if kept is None else kept.gather(1, dropped)
    whole = first_inputs(vit, images)
    expected = whole.clone()
    for image, indices in enumerate(own):
        expected[image, 1 + indices] -= vit.pos_embed[0, 1 + indices]
    if kept is not None:
        index = torch.cat([torch.zeros(2, 1, dtype=torch.long), 1 + kept], dim=1)
        expected = torch.stack([image[rows] for image, rows in zip(expected, index, strict=True)])
        whole = torch.stack([image[rows] for image, rows in zip(whole, index, strict=True)])
        # As token dropping does, whose hook comes first.
        vit.layers[0].register_forward_pre_hook(
            lambda _, args: (torch.stack([image[rows] for image, rows in zip(args[0], index, strict=True)]),),
            prepend=True,
        )
    with dropping.placing(dropped, torch.zeros(2, 2, 16), kept):
        torch.testing.assert_close(first_inputs(vit, images), expected)
    with dropping.placing(dropped, F.one_hot(own, 16).float(), kept):  # at their own positions, nothing is dropped
        torch.testing.assert_close(first_inputs(vit, images), whole)


def test_logits_are_of_the_dropped_patches():
    _, dropping = parts()
    tokens = torch.randn(2, 1 + 16, 16)
    features = torch.stack([tokens[0, [1, 5, 16]], tokens[1, [2, 3, 4]]])
    expected = features @ dropping.predict.weight.T + dropping.predict.bias
    torch.testing.assert_close(dropping.logits(tokens, torch.tensor([[0, 4, 15], [1, 2, 3]]), None), expected)
    kept = torch.tensor([[3, 7, 9], [0, 1, 2]])  # the network reads three patches and a class token
    found = dropping.logits(tokens[:, :4], torch.tensor([[0, 2], [1, 2]]), kept)
    expected = torch.stack([tokens[0, [1, 3]], tokens[1, [2, 3]]]) @ dropping.predict.weight.T + dropping.predict.bias
    torch.testing.assert_close(found, expected)


def test_losses_in_closed_form():
    _, dropping = parts()
    kept, dropped = torch.tensor([[1, 3, 5], [0, 2, 15]]), torch.tensor([[2], [0]])  # patches 5 and 0
    positions = torch.zeros(2, 1, 16)
    positions[0, 0, 5], positions[1, 0, 7] = 2.0, 1.0
    pair = TrainingPair(None, None, kept=kept, dropped=dropped)
    losses = dropping.losses(positions, pair)
    e = torch.e
    expected = torch.tensor([(e**2 + 15) / e**2, e + 15]).log().mean()  # probabilities of the true positions
    torch.testing.assert_close(losses['loss_position'], 0.3 * expected)
    assert losses['position_accuracy'] == 0.5


def test_uncorrupted_patches_lose_their_position_first():
    _, dropping = parts()
    changed = torch.ones(3, 16, dtype=torch.bool)
    changed[0, [1, 4, 6, 9, 12]] = False  # more than four
    changed[1, [0, 15]] = False
    dropped = dropping.choose(changed)
    assert dropped.shape == (3, 4)
    assert set(dropped[0].tolist()) < {1, 4, 6, 9, 12}
    assert {0, 15} < set(dropped[1].tolist())
    assert all(len(set(row.tolist())) == 4 for row in dropped)


def test_a_step_restores_images_and_positions():
    """One step of the algorithm is x - a dE/dx and p - dE/dp of its own energy, differentiated here."""
    torch.manual_seed(0)
    model = build_ebm(
        backbone=tiny_vit(img_size=16), position_dropping=dict(ratio=0.25), token_nce_weight=1.0, step_size=2.0
    )
    clean = torch.randn(2, 3, 16, 16)
    corrupted = clean.clone()
    corrupted[:, :, :8] = 0
    pair = model.patch_choice(corrupted, clean)
    restored, _ = model._step(model.missing.start(pair.corrupted).requires_grad_(), pair)
    images, positions = corrupted.clone().requires_grad_(), torch.zeros(2, 4, 16, requires_grad=True)
    with model.position_dropping.placing(pair.dropped, positions, None):
        features = model.backbone(images)[-1]
    energy = model.head(features).sum() - (positions * model.position_dropping.predict(
        torch.stack([tokens[1 + indices] for tokens, indices in zip(features, pair.dropped, strict=True)])
    )).sum()  # fmt: skip
    of_images, of_positions = torch.autograd.grad(energy, [images, positions])
    found, (found_positions,) = model.missing.unpack(restored, clean.shape)
    torch.testing.assert_close(found, corrupted - 2 * of_images)
    torch.testing.assert_close(found_positions, -of_positions)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ratio=0.0), 'ratio must be between 0 and 1'),
        (dict(ratio=1.0), 'ratio must be between 0 and 1'),
        (dict(ratio=0.5, weight=0.0), 'weight above 0'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        build_ebm(position_dropping=options)


@pytest.mark.parametrize('dropping', ['position_dropping', 'content_dropping'])
@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='ConvNeXt', arch=dict(depths=[2, 2], channels=[8, 16]), out_indices=(1,)),
        tiny_vit(img_size=16, type='ViTEVA02'),  # tells positions by rotations, too
        tiny_vit(img_size=16, type='DeiT3'),
        tiny_vit(img_size=16, type='BEiTViT', use_abs_pos_emb=True),
    ],
    ids=lambda backbone: backbone['type'],
)
def test_network_that_is_no_plain_vit(backbone, dropping):
    with pytest.raises(ValueError, match=f"{dropping}: {backbone['type']} is not one of mmpretrain's plain ViTs"):
        build_ebm(backbone=backbone, **{dropping: dict(ratio=0.25)})


def test_too_few_patches_are_read():
    _, dropping = parts(ratio=0.5)
    with pytest.raises(ValueError, match='drops the positions of 8 patches, and only 8 are read'):
        dropping.choose(torch.zeros(1, 8, dtype=torch.bool))


def test_pooled_features():
    _, dropping = parts()
    with pytest.raises(ValueError, match="set out_type='raw'"):
        dropping.logits(torch.zeros(2, 16), torch.zeros(2, 4, dtype=torch.long), None)


@pytest.mark.parametrize('shape', [(32, 32), (12, 12), (8, 32)], ids=str)  # the last has as many patches
@pytest.mark.parametrize('dropping', ['position_dropping', 'content_dropping'])
def test_images_of_another_size_than_the_position_embeddings(dropping, shape):
    tokens = dict(patch_size=4, visible=0.5, corrupted=0.25)
    model = build_ebm(backbone=tiny_vit(img_size=16), token_dropping=tokens, **{dropping: dict(ratio=0.25)})
    images = torch.randn(2, 3, *shape)
    message = f'{dropping}: the images are {shape[0]} x {shape[1]} pixels, and the position embeddings .* for 16 x 16'
    with pytest.raises(ValueError, match=message):
        model.loss([images.flip(2), images])


def test_tokens_are_dropped_by_other_patches_than_the_backbone_s():
    tokens = dict(patch_size=8, visible=0.5, corrupted=0.25)
    model = build_ebm(backbone=tiny_vit(img_size=16), token_dropping=tokens, position_dropping=dict(ratio=0.25))
    images = torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match='4 patches of patch_size 8, but the backbone has 16 position embeddings'):
        model.loss([images.flip(2), images])


@pytest.mark.parametrize('dropping', ['position_dropping', 'content_dropping'])
@pytest.mark.parametrize('options', [dict(pre_norm=True), dict(drop_rate=0.1)])
def test_positions_that_cannot_be_taken_away(options, dropping):
    with pytest.raises(ValueError, match=f'{dropping}: .* leave out drop_rate and pre_norm'):
        build_ebm(backbone=tiny_vit(img_size=16, **options), **{dropping: dict(ratio=0.25)})


def test_frozen_layer():
    options = dict(position_dropping=dict(ratio=0.25), frozen=['position_dropping.predict.bias'])
    assert not build_ebm(backbone=tiny_vit(img_size=16), **options).position_dropping.predict.bias.requires_grad
