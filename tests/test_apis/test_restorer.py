"""The inferencer, on every kind of input and every method."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image
from tiny import save_ebm, tiny_cim, tiny_vit

from mmebm.apis import Restorer
from mmebm.apis.sources import READERS, Item, prepared
from mmebm.datasets import BrokenImageError, Shapes
from mmebm.models import CIM, EBMAlgorithm
from mmebm.registry import MODELS

PREPROCESSOR = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)


@pytest.fixture(scope='module')
def pictures():
    """Five pictures (5, 32, 32, 3), BGR."""
    shapes = Shapes(size=5, split='val')
    return np.stack([shapes.draw(i).img for i in range(5)])


def with_alpha(pictures):
    """RGBA, (N, H, W, 4), of pictures in BGR."""
    return np.concatenate([pictures[..., ::-1], np.full_like(pictures[..., :1], 9)], axis=3)


@pytest.fixture(scope='module')
def folder(pictures, tmp_path_factory):
    """The pictures as files, one in a subfolder, and a file that is cut short."""
    folder = tmp_path_factory.mktemp('images')
    (folder / 'sub').mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture[..., ::-1]).save(folder / (f'sub/{i}.png' if i == 4 else f'{i}.png'))
    (folder / 'broken.png').write_bytes((folder / '0.png').read_bytes()[:90])
    return folder


@pytest.fixture(scope='module')
def restorer(tmp_path_factory):
    return Restorer(save_ebm(tmp_path_factory.mktemp('model') / 'epoch_1.pth')[0], device='cpu', batch_size=2)


@pytest.fixture(scope='module')
def energies(restorer, pictures):
    """By the model itself."""
    images = torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        return restorer.model.energy((images - 127.5) / 64).tolist()


@pytest.mark.parametrize(
    'given',
    [
        lambda pictures, folder: folder,
        lambda pictures, folder: [str(folder / f'{i}.png') for i in range(4)] + [folder / 'sub'],
        lambda pictures, folder: pictures,
        lambda pictures, folder: list(pictures),
        lambda pictures, folder: (picture for picture in pictures),
        lambda pictures, folder: [Image.fromarray(picture[..., ::-1]) for picture in pictures],
        lambda pictures, folder: torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2),
        lambda pictures, folder: [pictures[:2], torch.from_numpy(pictures[2:, ..., ::-1].copy()).permute(0, 3, 1, 2)],
        lambda pictures, folder: pictures.astype(np.float32),
        lambda pictures, folder: pictures.astype(np.uint16) * 257,
        lambda pictures, folder: torch.from_numpy(with_alpha(pictures)).permute(0, 3, 1, 2),
        lambda pictures, folder: torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).long(),
        lambda pictures, folder: torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).bfloat16(),
        lambda pictures, folder: pictures.astype(np.float16),
        lambda pictures, folder: pictures.astype(np.int32),
        lambda pictures, folder: pictures.astype('>u2') * 257,
    ],
    ids=[
        *('folder', 'paths', 'array', 'arrays', 'generator', 'PIL', 'tensor', 'batches', 'float', '16 bits'),
        *('alpha', 'int64', 'bfloat16', 'float16', 'int32', 'big-endian'),
    ],
)
def test_inputs_of_every_kind(restorer, pictures, folder, energies, given):
    results = list(restorer.energy(given(pictures, folder), maps=False))
    assert [result.energy for result in results] == pytest.approx(energies, abs=1e-4)
    assert len({result.source for result in results}) == 5


def test_a_broken_file_is_skipped_and_named(restorer, folder, caplog):
    results = list(restorer.energy(folder))
    assert len(results) == 5
    assert restorer.skipped.keys() == {str(folder / 'broken.png')}
    assert 'truncated' in restorer.skipped[str(folder / 'broken.png')]
    with pytest.raises(BrokenImageError, match=r'no image could be read: .*broken\.png: is truncated'):
        list(restorer.energy([folder / 'broken.png', folder / 'missing.png']))


def test_pil_images_of_16_bits_of_either_byte_order(restorer, pictures):
    gray = pictures[0, ..., 0].astype(np.uint16) * 257
    orders = {'I;16': '<u2', 'I;16B': '>u2'}
    images = [Image.frombytes(mode, (32, 32), gray.astype(kind).tobytes()) for mode, kind in orders.items()]
    expected = next(restorer.energy(pictures[0, ..., 0])).energy
    assert [one.energy for one in restorer.energy(images)] == pytest.approx([expected] * 2, abs=1e-5)


def test_integers_of_a_known_range_are_scaled(restorer, pictures, monkeypatch):
    expected = next(restorer.energy(pictures[0].astype(np.float32))).energy
    monkeypatch.setattr(restorer.prepare.loader, 'value_range', (-1000, 1550))
    values = pictures[0].astype(np.int16) * 10 - 1000
    for image in (values, values.astype('>i2')):
        assert next(restorer.energy(image)).energy == pytest.approx(expected, abs=1e-4)


def test_values_of_arrays_are_checked_as_those_of_files(pictures):
    model = MODELS.build(
        dict(
            type='mmebm.EBMAlgorithm',
            backbone=tiny_vit(img_size=32),
            head=dict(type='mmebm.EnergyHead', in_channels=16),
        )
    )
    pipeline = [dict(type='mmebm.LoadImage', color_type='unchanged', value_range=(0, 4095))]
    config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    model._config = config
    restorer = Restorer(model, device='cpu')
    assert len([*restorer.energy(pictures.astype(np.uint16) * 16, progress=False)]) == 5
    with pytest.raises(ValueError, match=r'value_range=\(0, 4095\) exceeds the uint8 values'):
        [*restorer.energy(pictures, progress=False)]
    broken = pictures.astype(np.float32)
    broken[1, 0, 0] = np.nan
    assert len([*restorer.energy(broken, progress=False)]) == 4 and len(restorer.skipped) == 1


def test_boolean_images_are_black_and_white(restorer, pictures):
    mask = pictures[0, ..., 0] > 127
    found, expected = (next(restorer.energy(image)).energy for image in (mask, mask.astype(np.uint8) * 255))
    assert found == expected


def test_maps(restorer, pictures):
    result = next(iter(restorer.energy(pictures)))
    assert result.token_energies.shape == (8, 8) and result.gradient.shape == (32, 32)
    assert torch.equal(result.image, torch.from_numpy(pictures[0, ..., ::-1].copy()).permute(2, 0, 1).float())
    # In the direction of the gradient, the energy rises by its norm.
    x = ((result.image - 127.5) / 64).requires_grad_()
    (gradient,) = torch.autograd.grad(restorer.model.energy(x[None])[0], x)
    assert torch.allclose(result.gradient, gradient.square().sum(dim=0).sqrt(), atol=1e-5)
    tokens = restorer.model.energy_parts(x[None])[0, 1:]
    assert torch.allclose(result.token_energies.flatten(), tokens, atol=1e-5)


def test_every_step_of_a_restoration(restorer, pictures):
    noise = dict(type='mmebm.GaussianNoise', sigma=20.0)
    [result] = restorer.restore(pictures[0], corruption=noise, num_steps=3)
    assert result.images.shape == (4, 3, 32, 32) and result.energies.shape == (4,)
    assert (result.energies.diff() < 0).all()  # a descent, by short steps
    assert 5 < (result.images[0] - result.clean).std() < 20  # less than sigma: values are clipped
    assert result.residual.mean() == pytest.approx((result.images[-1] - result.images[0]).abs().mean())
    (again,) = restorer.restore(pictures[0], corruption='GaussianNoise', num_steps=3)
    assert not torch.equal(again.images, result.images)  # another sigma
    (same,) = restorer.restore(pictures[0], corruption=noise, num_steps=3)
    assert torch.equal(same.images, result.images)
    (given,) = restorer.restore(pictures[0])
    assert given.clean is None and np.array_equal(given.pictures[0], pictures[0, ..., ::-1])


def test_half_of_a_corruption(restorer, pictures):
    full = dict(type='mmebm.Grayscale')
    half = dict(type='mmebm.CorruptedPair', corruption=full, strength=0.5)
    (a,), (b,) = restorer.restore(pictures[:1], full), restorer.restore(pictures[:1], half)
    assert torch.allclose(b.images[0] - b.clean, (a.images[0] - a.clean) / 2, atol=1.0)


@pytest.mark.parametrize(
    ('layer', 'pooled', 'shape'),
    [(None, True, (16,)), (None, False, (16, 8, 8)), (0, True, (16,)), (-1, False, (16, 8, 8)),
     ('layers.1', False, (16, 8, 8)), ('patch_embed', False, (16, 8, 8))],
)  # fmt: skip
def test_features(restorer, pictures, layer, pooled, shape):
    features = [result.features for result in restorer.features(pictures, layer, pooled)]
    assert len(features) == 5 and features[0].shape == shape
    assert not torch.equal(features[0], features[1])


def test_features_by_position_have_the_pooled_ones_as_their_mean(restorer, pictures):
    (pooled,), (map_,) = restorer.features(pictures[:1]), restorer.features(pictures[:1], pooled=False)
    assert torch.allclose(pooled.features, map_.features.mean(dim=(1, 2)), atol=1e-6)


def test_the_last_layer_is_that_before_the_last_norm(restorer, pictures):
    norm = restorer.model.backbone.ln1
    (before,), (after,) = restorer.features(pictures[:1], -1, False), restorer.features(pictures[:1], None, False)
    normed = torch.nn.functional.layer_norm(
        before.features.permute(1, 2, 0), (16,), norm.weight, norm.bias, norm.eps
    ).permute(2, 0, 1)
    assert torch.allclose(normed, after.features, atol=1e-5)


def test_a_failed_load_leaves_the_logger_as_it_was():
    logger = MMLogger.get_current_instance()
    level = logger.level
    missing = dict(type='Pretrained', checkpoint='missing.pth')
    config = dict(
        type='mmebm.EBMAlgorithm',
        backbone=tiny_vit(init_cfg=missing),
        head=dict(type='mmebm.EnergyHead', in_channels=16),
    )
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        Restorer(Config(dict(model=config)))
    assert logger.level == level


def test_images_of_several_sizes(restorer, pictures):
    """Without a pipeline that resizes, they are resized to what the backbone is for."""
    large = np.repeat(np.repeat(pictures[:1], 2, axis=1), 2, axis=2)
    small, resized = restorer.energy([pictures[0], large[0]])
    assert small.energy == pytest.approx(resized.energy, abs=0.05)


@pytest.mark.parametrize('channels', [1, 13])
def test_other_channels_than_three(channels):
    model = MODELS.build(dict(
        type='mmebm.EBMAlgorithm', backbone=tiny_vit(img_size=32, in_channels=channels), step_size=0.1,
        head=dict(type='mmebm.EnergyHead', in_channels=16), data_preprocessor=dict(mean=[100.0], std=[50.0]),
    ))  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (40, 40, channels), np.uint8)
    restorer = Restorer(model)
    (given,) = restorer.energy(image)
    (tensor,) = restorer.energy(torch.from_numpy(image).permute(2, 0, 1))
    assert given.image.shape == (channels, 32, 32) and tensor.energy == pytest.approx(given.energy)
    (result,) = restorer.restore(image, 'GaussianNoise')
    assert result.images.shape == (2, channels, 32, 32) and result.pictures[0].shape == (32, 32)


def test_a_result_holds_its_own_memory(restorer, pictures):
    for result in (next(iter(restorer.features(pictures))).features, next(iter(restorer.restore(pictures))).images):
        assert result.untyped_storage().nbytes() == result.nbytes


def test_results_come_before_all_images_are_read():
    taken = []
    items = (taken.append(i) or Item(str(i), i) for i in range(10**6))
    results = prepared(items, lambda item: item.image, ahead=4)
    assert [next(results).image for _ in range(10)] == list(range(10))
    assert len(taken) <= 10 + 4 + READERS


@pytest.mark.parametrize(
    ('call', 'error', 'match'),
    [
        (lambda r, p: r.energy('nowhere'), FileNotFoundError, 'no file or folder "nowhere"'),
        (lambda r, p: r.energy(3), TypeError, 'must be a path, a folder, an array'),
        (lambda r, p: list(r.energy([3])), TypeError, 'must be a path, a folder, an array'),
        (lambda r, p: list(r.energy(p[0] / 255)), ValueError, 'image 0: floating-point values of at most 1'),
        (
            lambda r, p: list(r.energy(p[0].astype(int) * 2)),
            ValueError,
            'image 0: values of 0 to .* of type int64, whose',
        ),
        (lambda r, p: r.restore(p, num_steps=0), ValueError, 'num_steps must be a whole number of at least 1, not 0'),
        (lambda r, p: r.restore(p, 'blur'), ValueError, "corruption='blur' is neither one of the config"),
        (lambda r, p: r.features(p, layer=2), ValueError, 'layer 2 of VisionTransformer, which has 2 blocks'),
        (lambda r, p: r.features(p, layer='head'), ValueError, "layer 'head' is none of the modules"),
        (lambda r, p: Restorer('nothing'), FileNotFoundError, 'No config file "nothing"'),
        (lambda r, p: Restorer(3), TypeError, 'model must be a name, a path, a Config or a model, not int'),
        (lambda r, p: Restorer(r.model, batch_size=0), ValueError, 'batch_size must be a whole number'),
    ],
)
def test_bad_input_is_refused_by_the_call(restorer, pictures, call, error, match):
    with pytest.raises(error, match=match):
        call(restorer, pictures)


def test_patches_have_no_energy_of_whole_images(pictures):
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='mmebm.PatchEBM', backbone=tiny_vit(img_size=32, patch_size=8) | dict(type='mmebm.PatchSubsetViT'),
        head=dict(type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), patch_size=8, embed_dims=16,
                  num_heads=2),
        data_preprocessor=PREPROCESSOR,
    ))  # fmt: skip
    restorer = Restorer(model)
    with pytest.raises(TypeError, match='PatchEBM has no energy of whole images; it has Restorer.restore and Rest'):
        restorer.energy(pictures)
    with pytest.raises(ValueError, match='PatchEBM corrupts images itself'):
        restorer.restore(pictures, 'GaussianNoise')
    results = list(restorer.restore(pictures))
    assert results[4].images.shape == (2, 3, 32, 32) and results[4].energies.shape == (2,)
    assert torch.equal(results[4].clean, torch.from_numpy(pictures[4, ..., ::-1].copy()).permute(2, 0, 1).float())
    assert next(iter(restorer.features(pictures))).features.shape == (16,)


def test_cim_says_what_it_can_do(pictures):
    respix = Restorer(MODELS.build(tiny_cim('respix')))
    assert isinstance(respix.model, CIM)
    (result,) = respix.restore(pictures[0])
    assert result.images.shape == (2, 3, 16, 16) and result.energies is None
    revdet = Restorer(MODELS.build(tiny_cim('revdet')))
    for call in (revdet.energy, revdet.restore):
        with pytest.raises(TypeError, match='CIM .*; it has Restorer.features'):
            call(pictures)


def test_a_model_that_is_not_ours_has_features():
    head = dict(type='LinearClsHead', num_classes=2, in_channels=16)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=tiny_vit(img_size=16), head=head))
    restorer = Restorer(model)
    assert restorer.abilities == ['features']
    with pytest.raises(TypeError, match='ImageClassifier restores no images; it has Restorer.features'):
        restorer.restore(np.zeros((16, 16, 3), np.uint8))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    return path, save_ebm(path)[1]


def test_a_checkpoint_alone(checkpoint, folder, pictures, energies):
    path, config = checkpoint
    alone, behind = Restorer(path), Restorer(config, path)
    for restorer in (alone, behind):
        assert isinstance(restorer.model, EBMAlgorithm)
        assert restorer.provenance == dict(images=5) and [*restorer.corruptions] == ['mask']
        assert [r.energy for r in restorer.energy(folder)] == pytest.approx(energies, abs=1e-4)
    (masked,) = alone.restore(pictures[0], 'mask')
    assert ((masked.images[0] - masked.clean) != 0).any(dim=0).float().mean() == pytest.approx(0.5, abs=0.05)


def test_a_checkpoint_of_another_model(checkpoint):
    other = copy.deepcopy(checkpoint[1])
    other.model.backbone.arch.embed_dims = other.model.head.in_channels = 8
    with pytest.raises(ValueError, match='epoch_1.pth holds other weights than those of a EBMAlgorithm'):
        Restorer(other, checkpoint[0])


@pytest.mark.parametrize('kind', ['os.system', 'builtins.exec', 'mmengine.Config'])
@pytest.mark.parametrize('place', ['model', 'pipeline'])
def test_a_checkpoint_cannot_name_what_to_call(checkpoint, tmp_path, kind, place):
    path, config = checkpoint
    config = copy.deepcopy(config)
    if place == 'model':
        config.model.neck = dict(type=kind)
    else:
        config.test_dataloader.dataset.pipeline[1] = dict(type=kind)
    content = torch.load(path) | dict(meta=dict(cfg=config.pretty_text))
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=f"has the type '{kind}' at .*, which is not registered"):
        Restorer(tmp_path / 'evil.pth')


@pytest.mark.parametrize(
    ('place', 'node', 'message'),
    [
        (
            'pipeline',
            dict(type='torchvision/ConvertImageDtype', dtype="float32 if open('ran', 'w') else 0"),
            r'pipeline\.1\.dtype=.* would be evaluated',
        ),
        (
            'model',
            dict(type='AutoModelForCausalLM', name_or_path='theirs', trust_remote_code=True),
            r'neck\.trust_remote_code=True downloads and runs code',
        ),
    ],
)
def test_a_checkpoint_cannot_say_what_to_run(checkpoint, tmp_path, monkeypatch, place, node, message):
    monkeypatch.chdir(tmp_path)
    path, config = checkpoint
    config = copy.deepcopy(config)
    if place == 'model':
        config.model.neck = node
    else:
        config.test_dataloader.dataset.pipeline[1] = node
    torch.save(torch.load(path) | dict(meta=dict(cfg=config.pretty_text)), 'evil.pth')
    with pytest.raises(ValueError, match=f'The config in evil.pth is refused: .*{message}'):
        Restorer('evil.pth')
    assert not Path('ran').exists()
