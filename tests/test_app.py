"""The app: what it shows of an image, what it survives, and that nothing leaves this machine."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from tiny import build_ebm, tiny_cim, tiny_vit

from mmebm.apis import Restorer
from mmebm.app import explorer as explorer_module
from mmebm.app.explorer import AS_GIVEN, MAPS, Descent, Explorer, energy_curve, enlarged, shown

SIZE = 16


@pytest.fixture(scope='module')
def explorer():
    model = build_ebm(
        tiny_vit(img_size=SIZE),
        dict(over='tokens'),
        num_steps=2,
        data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
    )
    return Explorer(Restorer(model.eval()))


@pytest.fixture
def file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    return str(tmp_path / 'a.png')


def test_a_descent_has_a_picture_an_energy_and_maps_for_every_step(explorer, file):
    found = explorer.descend(file, 'GaussianNoise', 1.0, 3)
    assert found.num_steps == 3 and len(found.energies) == 4
    assert {name: len(maps) for name, maps in found.maps.items()} == dict.fromkeys(MAPS, 4)
    assert all(maps[0].shape == (SIZE, SIZE) for maps in found.maps.values())
    assert not found.maps[MAPS[2]][0].any() and found.maps[MAPS[2]][3].any()
    assert np.array_equal(found.clean, np.asarray(Image.open(file)))


def test_the_maps_are_those_of_the_pictures_shown(explorer, file):
    """The tokens' energies add up to the energy of the image, which is neither resized nor cropped again."""
    found = explorer.descend(file, AS_GIVEN, 1.0, 2)
    tokens = found.maps[MAPS[1]][0][2::4, 2::4]  # a token is a square of 4 pixels, and one more is the class token's
    (result,) = explorer.restorer.energy(file, progress=False)
    assert np.allclose(tokens, result.token_energies.numpy())
    assert np.allclose(found.maps[MAPS[0]][0], result.gradient.numpy(), rtol=1e-4, atol=1e-6)


def test_strength_zero_leaves_the_image_and_half_lies_between(explorer, file):
    clean = explorer.descend(file, 'Grayscale', 0.0, 1)
    half, full = (explorer.descend(file, 'Grayscale', strength, 1).pictures[0] for strength in (0.5, 1.0))
    assert np.array_equal(clean.pictures[0], clean.clean)
    assert np.ptp(full, axis=2).max() <= 1
    middle = (full.astype(int) + clean.clean) / 2
    assert np.abs(half - middle).max() <= 1


def test_without_corruption_there_is_no_clean_image(explorer, file):
    found = explorer.descend(file, AS_GIVEN, 1.0, 1)
    assert found.clean is None and np.array_equal(found.pictures[0], np.asarray(Image.open(file)))


@pytest.mark.parametrize('content', [b'', b'text', 'truncated'])
def test_broken_files_are_named_in_words(explorer, file, tmp_path, content):
    pytest.importorskip('gradio')
    page = importlib.import_module('mmebm.app.page')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(Path(file).read_bytes()[:200] if content == 'truncated' else content)
    found, words = page.attempt(explorer, str(broken), AS_GIVEN, 1.0, 1)
    assert found is None and 'This image cannot be shown' in words and 'broken.png' in words
    assert str(tmp_path) not in words
    assert page.attempt(explorer, None, AS_GIVEN, 1.0, 1) == (None, 'Upload an image.')


def test_huge_pictures_are_refused_before_they_are_decoded(explorer, file, monkeypatch):
    monkeypatch.setattr(explorer_module, 'MAX_MEGAPIXELS', 1e-4)
    with pytest.raises(ValueError, match='more than 0 megapixels'):
        explorer.descend(file, AS_GIVEN, 1.0, 1)


def descent():
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100)]
    return Descent(pictures, [2.0, 1.0], None, {MAPS[0]: [np.zeros((8, 8)), np.ones((8, 8))]})


def test_opacity_mixes_the_map_into_the_picture_with_one_scale_for_all_steps():
    assert shown(descent(), 1, MAPS[0], 0.0).max() == 100
    brightest, darkest = shown(descent(), 1, MAPS[0], 1.0), shown(descent(), 0, MAPS[0], 1.0)
    assert brightest[0, 0].tolist() == [252, 255, 164] and darkest[0, 0].tolist() == [
        0,
        0,
        4,
    ]
    assert shown(descent(), 1, MAPS[0], 0.5)[0, 0].tolist() == [176, 177, 132]
    assert shown(descent(), 1, 'no such map', 0.5).max() == 100  # what the model lacks
    assert shown(descent(), 9).max() == 100  # the slider of a longer descent


def test_small_pictures_are_enlarged_by_whole_pixels():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = enlarged(picture)
    assert large.shape == (256, 256, 3) and np.array_equal(large[::128, ::128], picture)
    assert enlarged(np.zeros((300, 400, 3), np.uint8)).shape == (300, 400, 3)


def test_the_curve_shows_all_energies():
    (axes,) = energy_curve([3.0, 2.0, 1.5], 1).axes
    assert axes.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.5] and axes.lines[1].get_xdata() == [1, 1]


def test_a_method_that_corrupts_images_itself_has_no_energies(file):
    explorer = Explorer(Restorer(MODELS.build(tiny_cim('respix')).eval()))
    assert explorer.corruptions == [AS_GIVEN] and explorer.num_steps is None
    found = explorer.descend(file, AS_GIVEN, 1.0, 1)
    assert found.energies == [] and list(found.maps) == [MAPS[2]] and found.clean is not None


def test_a_model_that_restores_nothing_is_refused():
    with pytest.raises(ValueError, match='CIM restores no images'):
        Explorer(Restorer(MODELS.build(tiny_cim('revdet')).eval()))


def test_images_of_the_embedded_data_set_can_be_picked(explorer, tmp_path, file):
    assert explorer.examples(None) == []  # of a model without a config
    assert explorer.examples(tmp_path) == [file]
    explorer.restorer.config = Config(dict(train_dataloader=dict(dataset=dict(type='mmebm.Shapes', size=1))))
    examples = explorer.examples(None)
    assert len(examples) == 12 and examples[0].shape == (32, 32, 3)
    with pytest.raises(FileNotFoundError, match='There is no file or folder'):
        explorer.examples(tmp_path / 'none')


def test_it_is_served_on_this_machine_alone(explorer):
    gradio = pytest.importorskip('gradio')
    from mmebm.app.page import launch_options, make_page

    options = launch_options(None)
    assert (options['server_name'], options['share'], options['max_file_size']) == ('127.0.0.1', False, '20mb')
    assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'
    page = make_page(explorer, [], 'a model')
    assert isinstance(page, gradio.Blocks) and page.analytics_enabled is False
    style = options['theme']._get_theme_css()
    assert 'http' not in style.replace('http://www.w3.org/2000/svg', '') and not options['theme']._stylesheets


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'mmebm.app.page', raising=False)
    with pytest.raises(ImportError, match=r'pip install "mmebm\[app\]"'):
        importlib.import_module('mmebm.app.page')


def test_energies_of_results_are_those_of_the_model(explorer, file):
    (result,) = explorer.restorer.restore(file, progress=False)
    found = explorer.restorer.energy_of_results(result.images)
    model = explorer.restorer.model
    with torch.no_grad():
        expected = model.energy(model.from_pixels(result.images.flip(1)))  # without a config, it takes BGR
    assert [one.energy for one in found] == pytest.approx(expected.tolist(), rel=1e-4)
    assert found[0].energy == pytest.approx(result.energies[0].item(), rel=1e-4)  # later ones are clipped
