"""The small tokenizer, and tokenizers frozen within another model."""

import pytest
import torch
from mmpretrain.registry import MODELS
from tiny import ColorTokenizer
from torch import nn

from mmebm.models import VQVAE, FrozenTokenizer


def frozen(model=None, **options):
    return FrozenTokenizer(model or ColorTokenizer(), **dict(mean=[0.0] * 3, std=[255.0] * 3) | options)


def pictures(num=2, size=16):
    """Pixels in squares of 8, each of one colour that the tokenizer has."""
    levels = torch.randint(0, 3, (num, 3, size // 8, size // 8), generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate((levels.float() + 0.5) / 3 * 255, scale_factor=8)


def test_vqvae_decodes_the_embeddings_of_its_tokens():
    torch.manual_seed(0)
    model = VQVAE(num_embed=7, downsampling=4, width=8, embed_dims=4)
    weight = model.quantizer.embedding.weight
    weight.data = nn.functional.normalize(torch.randn(7, 4), dim=1)
    images = torch.randn(2, 3, 8, 12)
    tokens = model.tokens(images)
    assert tokens.shape == (2, 2, 3) and tokens.dtype == torch.long
    torch.testing.assert_close(tokens, model.fit(images).argmax(dim=1))
    # What training decodes: the nearest embedding at each position.
    model.eval()
    model.quantizer.embedding.initted.fill_(1)
    nearest, _, _ = model.quantizer(model.encoder(images))
    torch.testing.assert_close(model.decode(tokens), model.decoder(nearest))
    assert model.decode(tokens).shape == images.shape
    assert (model.vocabulary, model.stride) == (7, 4)


def test_decodes_in_the_units_of_the_images():
    pixels = pictures()
    for scale in (1.0, 0.5):
        tokenizer = frozen(scale=scale)
        assert tokenizer.stride == 4 / scale
        tokens = tokenizer.tokens(pixels)
        assert tokens.shape == (2, 16 // tokenizer.stride, 16 // tokenizer.stride)
        assert tokenizer.decode(tokens).shape == pixels.shape
    torch.testing.assert_close(frozen().decode(frozen().tokens(pixels)), pixels)
    # Another range of the tokenizer's own images changes nothing, if it is said.
    shifted = ColorTokenizer()
    inner = ColorTokenizer()
    shifted.tokens = lambda images: inner.tokens((images - 0.1) / 0.8)
    shifted.decode = lambda tokens: inner.decode(tokens) * 0.8 + 0.1
    torch.testing.assert_close(
        frozen(shifted, mean=[-31.875] * 3, std=[318.75] * 3).decode(frozen().tokens(pixels)), pixels
    )


def test_stays_as_it_is():
    model = VQVAE(num_embed=5, width=8, embed_dims=4)
    tokenizer = frozen(model)
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.train()
    assert not any(module.training for module in tokenizer.modules())
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    pixels = pictures().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        decoded = tokenizer.decode(tokenizer.tokens(pixels))
    assert decoded.dtype == torch.float32 and not decoded.requires_grad
    assert all(value.equal(before[name]) for name, value in tokenizer.state_dict().items())


def test_precision_does_not_change_tokens():
    tokenizer = frozen(VQVAE(num_embed=64, width=8, embed_dims=4))
    weight = tokenizer.model.quantizer.embedding.weight
    weight.data = nn.functional.normalize(torch.randn(64, 4), dim=1)
    pixels = torch.rand(4, 3, 32, 32) * 255
    expected = tokenizer.tokens(pixels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert tokenizer.tokens(pixels).equal(expected)


@pytest.mark.parametrize(
    'model, options, error, message',
    [
        (nn.ReLU(), {}, TypeError, r"ReLU is no tokenizer, it lacks \['tokens', 'decode'"),
        (None, dict(scale=0.7), ValueError, 'at scale=0.7, a token of 4 pixels is 5.71429'),
        (None, dict(scale=0.0), ValueError, 'scale must be a positive number, not 0.0'),
        (None, dict(scale='half'), ValueError, "scale must be a positive number, not 'half'"),
        (None, dict(mean=0.0), ValueError, 'mean=0.0 and std=.* must be one number for each channel'),
        (None, dict(mean=None), ValueError, 'mean=None and std=.* must be one number for each channel'),
        (None, dict(mean=[0.0] * 2), ValueError, 'must be one number for each channel'),
        (None, dict(std=[0.0] * 3), ValueError, 'std=.* must be .* those of std positive'),
    ],
)
def test_what_does_not_fit(model, options, error, message):
    with pytest.raises(error, match=message):
        frozen(model, **options)


def test_images_of_another_size():
    with pytest.raises(ValueError, match='images of 18 x 16 pixels are no whole number of tokens of 4 pixels'):
        frozen().tokens(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match='the images have 1 channels, but mean and std of the tokenizer are for 3'):
        frozen().tokens(torch.zeros(1, 1, 16, 16))


def test_units_and_training_are_checked_by_what_is_decoded():
    pixels = pictures()
    frozen().check(pixels)
    frozen().check(torch.full((2, 3, 16, 16), 127.5))  # of one colour
    frozen().check(torch.full((2, 3, 16, 16), 135.0))  # whose tokens are not exact
    frozen().check(torch.full((2, 3, 16, 16), float('nan')))  # of which NonFiniteLossHook tells
    untrained = FrozenTokenizer(VQVAE(num_embed=5, width=8, embed_dims=4), mean=[-31.875] * 3, std=[318.75] * 3)
    with pytest.raises(ValueError, match='Either VQVAE is untrained .*init_cfg'):
        untrained.check(pixels)
    with pytest.raises(ValueError, match='other units than mean and std make'):
        frozen(mean=[127.5] * 3, std=[127.5] * 3).check(pixels)


def test_builds_from_a_config():
    config = dict(type='mmebm.FrozenTokenizer', model=dict(type='mmebm.VQVAE', num_embed=5), mean=[0.0], std=[255.0])
    assert MODELS.build(config).vocabulary == 5


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(downsampling='4'), "downsampling must be a whole number of at least 1, not '4'"),
        (dict(num_embed=0), 'num_embed must be a whole number of at least 1, not 0'),
        (dict(kmeans_interval=0), 'kmeans_interval must be a whole number of at least 1, not 0'),
    ],
)
def test_sizes_of_vqvae(options, message):
    with pytest.raises(ValueError, match=message):
        VQVAE(**options)


def test_kmeans_waits_for_a_batch_with_enough_features(monkeypatch):
    torch.manual_seed(0)
    model = VQVAE(num_embed=128, width=8, embed_dims=4, kmeans_interval=3).train()
    images = torch.randn(16, 3, 32, 32)
    fitted = []
    initialise = model.quantizer.embedding.init_embed_

    def counted(features):
        if not model.quantizer.embedding.initted:
            fitted.append(len(features))
        initialise(features)

    monkeypatch.setattr(model.quantizer.embedding, 'init_embed_', counted)
    for batch in (images, images, images, images[:1], images, images):
        model.loss(batch)
    positions = 16 * (32 // model.stride) ** 2
    assert (32 // model.stride) ** 2 < 128 <= positions and fitted == [positions, positions] and model.batches == 5
