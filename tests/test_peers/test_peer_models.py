"""The few classes of ours that other methods need."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models.selfsup import MAE, HOGGenerator
from mmpretrain.models.utils import vector_quantizer

from mmebm.models.peers import BEiTPlainViT, HOGOfPatches, SimMIMViT
from mmebm.models.tokenizers.vqvae import VQVAE
from mmebm.registry import MODELS

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
TINY = dict(arch=ARCH, img_size=16, patch_size=4, out_type='raw')


def build(kind):
    model = kind(**TINY)
    model.init_weights()
    torch.nn.init.normal_(model.mask_token)
    model.eval()  # the backbone's returns nothing
    return model


@pytest.fixture
def mask():
    """Masked in the first row of patches, and in one of the second."""
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[:, 0] = 1
    mask[:, 1, 3] = 1
    return mask


@pytest.mark.parametrize('kind', [SimMIMViT, BEiTPlainViT])
def test_masked_patches_are_not_seen_and_the_others_are(kind, mask):
    model, images = build(kind), torch.randn(2, 3, 16, 16)
    under, beside = images.clone(), images.clone()
    under[:, :, :4] = 9.0
    under[:, :, 4:8, 12:] = 9.0
    beside[:, :, 4:8, 8:12] = 9.0
    with torch.no_grad():
        (features,) = model(images, mask)
        assert model(under, mask)[0].equal(features)
        assert not model(beside, mask)[0].allclose(features)


def test_masks_of_nothing_change_nothing(mask):
    images, none = torch.randn(2, 3, 16, 16), torch.zeros_like(mask)
    with torch.no_grad():
        beit, simmim = build(BEiTPlainViT), build(SimMIMViT)
        torch.testing.assert_close(beit(images, none)[0], beit(images, None)[0])
        tokens = simmim(images, None)[0][:, 1:]
        (features,) = simmim(images, none)
    assert tuple(features.shape) == (2, 32, 4, 4)
    torch.testing.assert_close(features[:, :, 1, 2], tokens[:, 4 * 1 + 2])


def test_histograms_are_those_of_mmpretrain_where_it_has_them():
    images = torch.randn(2, 3, 224, 224)
    assert HOGOfPatches(patch_size=16, pool=8)(images).equal(HOGGenerator(pool=8)(images))


def test_histograms_of_small_patches():
    """A brightness that grows to the right has one direction everywhere, which is one of nine bins."""
    image = torch.arange(32.0).expand(1, 3, 32, 32)
    targets = HOGOfPatches(patch_size=4, pool=2, gaussian_window=4)(image)
    assert tuple(targets.shape) == (1, 64, 108)
    inner = targets.view(8, 8, 3, 9, 4)[1:-1, 1:-1]  # the image is mirrored at its edges
    assert inner.amax(3).allclose(torch.ones(()))  # of unit length
    assert inner.sum(3).allclose(torch.ones(()))
    assert inner.argmax(3).unique().numel() == 1


def test_cells_must_fill_a_patch():
    with pytest.raises(ValueError, match='pool=3 does not divide patch_size=4'):
        HOGOfPatches(patch_size=4, pool=3)


@pytest.mark.parametrize('downsampling', [1, 3, 6])
def test_downsampling_is_a_power_of_two(downsampling):
    with pytest.raises(ValueError, match=f'power of two above 1, not {downsampling}'):
        VQVAE(downsampling=downsampling)


def two_tone(number):
    """Images (N, 3, 16, 16) of patches that are dark or bright, and these (N, 4, 4)."""
    bright = torch.randint(2, (number, 4, 4))
    pixels = bright.mul(0.8).add(0.1).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return pixels.unsqueeze(1).expand(-1, 3, -1, -1), bright


def test_tokens_learn_to_restore():
    tokenizer = VQVAE(num_embed=8, downsampling=4, width=16, embed_dims=8)
    optimizer = torch.optim.AdamW([p for p in tokenizer.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        images, bright = two_tone(16)
        losses = tokenizer(images, mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in tokenizer.parameters() if p.requires_grad)
        optimizer.step()
    assert losses['loss_restored'].item() < 0.25 * images.var().item()
    tokens = tokenizer(images).argmax(1)
    assert set(tokens[bright == 0].tolist()).isdisjoint(tokens[bright == 1].tolist())


def test_codebook_is_made_anew_now_and_then(monkeypatch):
    """Of the features of the first batch and of the third."""
    sizes = []
    monkeypatch.setattr(
        vector_quantizer, 'kmeans', lambda data, number, *_, **__: (sizes.append(len(data)) or data[:number], None)
    )
    tokenizer = VQVAE(num_embed=4, downsampling=2, width=8, embed_dims=4, kmeans_interval=2)
    for size in (4, 6, 8, 10):
        tokenizer(torch.rand(1, 3, size, size), mode='loss')
    assert sizes == [2 * 2, 4 * 4]


def test_tokens_are_the_nearest_vectors_and_looking_changes_nothing():
    tokenizer = VQVAE(num_embed=16, downsampling=2, width=8, embed_dims=4)
    images = torch.rand(2, 3, 8, 12)
    tokenizer(images, mode='loss')  # sets the codebook
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        fit = tokenizer(images)
    assert tuple(fit.shape) == (2, 16, 4, 6)
    assert all(value.equal(state[name]) for name, value in tokenizer.state_dict().items())
    tokenizer.eval()
    _, _, nearest = tokenizer.quantizer(tokenizer.encoder(images))
    assert fit.argmax(1).flatten().equal(nearest)


def test_several_masks_are_a_larger_batch():
    config = Config.fromfile(Path(__file__).parents[2] / 'configs/peers/mae-4views_vit-w128_32px.py')
    model = MODELS.build(config.model)
    model.init_weights()
    images = torch.randn(3, 3, 32, 32)
    torch.manual_seed(1)
    loss = model.loss(images, [])['loss']
    torch.manual_seed(1)
    expected = MAE.loss(model, torch.cat([images] * 4), [])['loss']
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.manual_seed(1)
    assert not torch.allclose(MAE.loss(model, images, [])['loss'], expected)
