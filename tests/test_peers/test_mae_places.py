"""MAE whose encoder classifies the places of patches that it reads without position embedding."""

import pytest
import torch
from torch import nn

from mmebm.registry import MODELS

L, V, P = 16, 4, 4  # patches of an image, visible ones, position-dropped ones
VALUES = 3 * 4 * 4  # of a patch


def build(backbone=None, head=None):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    vit = dict(type='mmebm.PlacesMAEViT', arch=arch, img_size=16, patch_size=4, mask_ratio=0.75)
    decoder = dict(
        type='MAEPretrainDecoder',
        num_patches=L,
        patch_size=4,
        embed_dim=32,
        decoder_embed_dim=16,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    places = dict(
        type='mmebm.PlacesMAEHead',
        embed_dims=32,
        num_patches=L,
        norm_pix=True,
        patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    )
    model = MODELS.build(
        dict(type='mmebm.PlacesMAE', backbone=vit | (backbone or {}), neck=decoder, head=places | (head or {}))
    )
    model.init_weights()
    return model


def order_of(seed, number):
    """The random order of the patches of each image that a model draws with a seed."""
    torch.manual_seed(seed)
    return torch.rand(number, L).argsort(dim=1)


def inputs_of_the_first_block(model, images, seed):
    seen = []
    handle = model.backbone.layers[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    torch.manual_seed(seed)
    model.backbone(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize('seed', [1, 2])
def test_losses_in_closed_form(seed):
    """Without blocks, a feature is the mean v of a patch; a logit s (2 v l - l^2) is largest at the place l = v."""
    sharpness, weight = 0.3, 0.5
    model = build(head=dict(position_weight=weight))
    for module in (model.backbone, model.head, model.neck):
        for name, p in module.named_parameters():
            if name != 'pos_embed':
                p.data.zero_()
    model.backbone.layers, model.neck.decoder_blocks = nn.ModuleList(), nn.ModuleList()
    model.backbone.ln1 = nn.Identity()
    model.backbone.patch_embed.projection.weight.data[0] = 1 / VALUES
    places = torch.arange(float(L))
    model.head.place.weight.data[:, 0] = 2 * sharpness * places
    model.head.place.bias.data = -sharpness * places.square()

    patterns = torch.randn(3, 3, 4, 4, 4, 4)  # of patches, in rows and columns
    patterns -= patterns.mean(dim=(1, 3, 5), keepdim=True)
    # Patch l shows the number of place l; those of the last image show their neighbour's.
    shown = torch.stack([places, places, places.roll(1)]).view(3, 1, 4, 1, 4, 1)
    images = (patterns + shown).reshape(3, 3, 16, 16)
    dropped = order_of(seed, 3)[:, V : V + P]

    torch.manual_seed(seed)
    losses = model.loss(images, [])
    assert list(losses) == ['loss_reconstruction', 'loss_position', 'position_accuracy']
    logits = -sharpness * (shown.flatten(1).gather(1, dropped).unsqueeze(-1) - places).square()
    cross_entropy = logits.logsumexp(dim=-1) - logits.gather(-1, dropped.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(losses['loss_position'], weight * cross_entropy.mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses['position_accuracy'], torch.tensor(2 / 3))
    # The decoder predicts 0 for values of mean 0 and unbiased variance 1.
    torch.testing.assert_close(losses['loss_reconstruction'], torch.tensor((VALUES - 1) / VALUES), rtol=1e-4, atol=0)
    total, logged = model.parse_losses(losses)
    assert total.item() == logged['loss'].item()
    torch.testing.assert_close(total, losses['loss_reconstruction'] + losses['loss_position'])


def test_contents_are_maes_loss_of_all_patches_that_the_decoder_does_not_read():
    model, images = build(), torch.randn(2, 3, 16, 16)
    read = []
    model.neck.register_forward_pre_hook(lambda neck, args: read.append(args[0]))
    torch.manual_seed(1)
    losses = model.loss(images, [])
    torch.manual_seed(1)
    features, masked, ranks, dropped, places = model.backbone(images)
    assert read[0].equal(features)
    assert (tuple(features.shape), tuple(dropped.shape)) == ((2, 1 + V, 32), (2, P, 32))
    order = order_of(1, 2)
    assert places.equal(order[:, V : V + P])
    assert masked.equal(torch.ones(2, L).scatter(1, order[:, :V], 0.0))
    errors = (model.neck(features, ranks) - model.head.construct_target(images)).square().mean(dim=2)
    torch.testing.assert_close(losses['loss_reconstruction'], errors.gather(1, order[:, V:]).mean())


def test_every_parameter_gets_a_gradient():
    model = build()
    model.parse_losses(model.loss(torch.randn(2, 3, 16, 16), []))[0].backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert 'head.place.weight' in trained
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_position_dropped_patches_are_read_without_position():
    model, images = build(), torch.randn(2, 3, 16, 16)
    before = inputs_of_the_first_block(model, images, seed=1)
    positions = model.backbone.pos_embed.data
    positions[:, 1:] = positions[:, 1:].roll(1, dims=1)
    after = inputs_of_the_first_block(model, images, seed=1)
    assert before.shape[1] == 1 + V + P
    changed = (before != after).any(dim=2)
    assert changed.tolist() == [[False] + V * [True] + P * [False]] * 2
    patches, _ = model.backbone.patch_embed(images)
    dropped = order_of(1, 2)[:, V : V + P]
    assert after[:, 1 + V :].equal(torch.stack([patches[i, dropped[i]] for i in range(2)]))


def test_whole_images_are_read_with_all_positions():
    model, images = build().eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        (features,) = model.extract_feat(images)
        (expected,) = super(type(model.backbone), model.backbone).forward(images, None)
    assert tuple(features.shape) == (2, 1 + L, 32)
    assert features.equal(expected)


@pytest.mark.parametrize(
    ('backbone', 'head', 'message'),
    [
        (dict(position_drop_ratio=0.0), {}, 'position_drop_ratio must be between 0 and 1, not 0.0'),
        (dict(position_drop_ratio=float('nan')), {}, 'position_drop_ratio must be between 0 and 1, not nan'),
        (dict(position_drop_ratio='a quarter'), {}, "between 0 and 1, not 'a quarter'"),
        (dict(mask_ratio=1.0), {}, 'mask_ratio must be between 0 and 1, not 1.0'),
        (dict(mask_ratio=0.97), {}, 'mask_ratio=0.97 makes 0 of 16 patches visible'),
        (dict(position_drop_ratio=0.01), {}, 'position_drop_ratio=0.01 shows 0 without position'),
        (dict(position_drop_ratio=0.75), {}, '=0.75 shows 12 without position; each must be 1 or more, and one patch'),
        ({}, dict(position_weight=-0.1), 'position_weight must be a number of at least 0, not -0.1'),
        ({}, dict(num_patches=64), 'is 32 wide and has 16 patches; .* not to 32 and 64'),
        ({}, dict(embed_dims=16), 'is 32 wide and has 16 patches; .* not to 16 and 16'),
    ],
)
def test_bad_options_are_refused(backbone, head, message):
    with pytest.raises(ValueError, match=message):
        build(backbone, head)
