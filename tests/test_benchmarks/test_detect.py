"""Defects, baselines, and the rows that the benchmark of detection writes."""

import importlib.util
import json
import shutil
import sys

import cv2
import numpy as np
import pytest
from tiny import save_ebm

from benchmarks.defects import DEFECTS, ODDITIES, png_size, variation
from benchmarks.detect import Scorer, as_seen, main, of_defects, of_mvtec, of_oddities, of_others
from benchmarks.detection_tools import aupro, cleanvision_scores
from benchmarks.mvtec import read_category
from mmebm.apis import Restorer
from mmebm.datasets import Shapes

TOOLS = all(importlib.util.find_spec(name) for name in ('pyaupro', 'cleanvision'))
needs_tools = pytest.mark.skipif(not TOOLS, reason='pip install ".[benchmarks]"')
SCORES = ('energy', 'norm of dE/dx', 'knn of features', 'png size', 'mean total variation')


@pytest.fixture(scope='module')
def images():
    shapes = Shapes(size=50, split='val')
    return [shapes.draw(i).img for i in range(50)]


@pytest.mark.parametrize('name', DEFECTS)
def test_a_defect_changes_what_its_mask_says(images, name):
    damaged, mask = DEFECTS[name](images[0], images[1], np.random.default_rng(0))
    assert (damaged[~mask] == images[0][~mask]).all()
    assert 0.02 < mask.mean() < 0.2 and (damaged[mask] != images[0][mask]).any(axis=1).mean() > 0.9


def test_total_variation_and_png_size(images):
    step = np.zeros((4, 4, 3), np.uint8)
    step[:, 2:] = 90
    expected = np.zeros((4, 4))
    expected[:, 1] = 90
    assert np.array_equal(variation(step), expected)
    rng = np.random.default_rng(0)
    assert (
        png_size(ODDITIES['blank'](images[0], rng)) < png_size(images[0]) < png_size(ODDITIES['noise'](images[0], rng))
    )


@needs_tools
def test_aupro_by_hand():
    # Two regions, of one pixel and of four, in 20; found one after another, then false pixels.
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 0, 0] = mask[0, 3:, 3:] = True
    assert aupro(mask.astype(float), mask) == pytest.approx(1)
    assert aupro(100.0 + mask, mask) == pytest.approx(1)  # a map of any range
    large_only = mask.astype(float)
    large_only[0, 0, 0] = -1  # found last: half of the regions until then
    assert aupro(large_only, mask) == pytest.approx(0.5)
    assert aupro(np.zeros((1, 5, 5)), mask) == 0
    tied = mask.astype(float)
    tied[0, :3, 1] = 1  # 3 of 20 pixels without a defect are found with both regions at once: 1 from 0.15 to 0.3
    assert aupro(tied, mask) == pytest.approx(0.75)
    with pytest.raises(ValueError, match='with a defect and pixels without'):
        aupro(np.zeros((1, 5, 5)), mask & False)


@needs_tools
def test_cleanvision_finds_a_blank_image_first(images):
    blank = np.full_like(images[0], 3)
    scores = cleanvision_scores([*images[:9], blank])
    assert scores.shape == (10,) and scores.argmax() == 9 and ((scores >= 0) & (scores <= 1)).all()


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyaupro', None)
    monkeypatch.setitem(sys.modules, 'cleanvision', None)
    for call in (lambda: aupro(np.zeros((1, 2, 2)), np.eye(2, dtype=bool)[None]), lambda: cleanvision_scores([])):
        with pytest.raises(ImportError, match=r'pip install "\.\[benchmarks\]"'):
            call()


@pytest.fixture
def category(images, tmp_path):
    """A category of which each test image of a defect has a bright square, at the same place as in its mask."""
    folder = tmp_path / 'bottle'
    for split, chosen in (('train', images[:10]), ('test', images[10:16])):
        for i, image in enumerate(chosen):
            save(folder / split / 'good' / f'{i:03}.png', image)
    for kind, side in (('dent', 8), ('scratch', 4)):
        for i, image in enumerate(images[20:25]):
            mask = np.zeros((32, 32), np.uint8)
            mask[8 : 8 + side, 16 : 16 + side] = 255
            save(folder / 'ground_truth' / kind / f'{i:03}_mask.png', mask)
            save(folder / 'test' / kind / f'{i:03}.png', np.where(mask[..., None] > 0, 255 - image, image))
    return folder


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def test_a_category_of_mvtec_is_read(category):
    found = read_category(category)
    assert (len(found.normal), len(found.good)) == (10, 6)
    assert {kind: len(files) for kind, files in found.defects.items()} == {'dent': 5, 'scratch': 5}
    image, mask = found.defects['scratch'][3]
    assert (image.name, image.parent.name, mask.name) == ('003.png', 'scratch', '003_mask.png')


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('ground_truth/dent/002_mask.png', r'dent/002.png has no mask .*ground_truth/dent/002_mask.png'),
        ('train/good', 'train/good: no images; a category has'),
        ('ground_truth/dent', 'ground_truth/dent: no images'),
    ],
)
def test_what_a_category_lacks_is_named(category, missing, message):
    path = category / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read_category(category)


def test_a_category_without_defects_is_named(category):
    for kind in ('dent', 'scratch'):
        shutil.rmtree(category / 'test' / kind)
    with pytest.raises(FileNotFoundError, match='no folder of a defect'):
        read_category(category)


@needs_tools
def test_rows_of_a_category(category, tmp_path):
    restorer = Restorer(save_ebm(tmp_path / 'epoch_1.pth')[0], batch_size=50)
    (masks,) = {
        image.shape for image in as_seen(restorer, [file for _, file in read_category(category).defects['dent']])
    }
    rows = list(of_mvtec(restorer, category, bank=5))
    assert {row['defect'] for row in rows} == {'dent', 'scratch'} and {row['data'] for row in rows} == {'mvtec bottle'}
    assert masks[:2] == as_seen(restorer, read_category(category).good)[0].shape[:2]
    for row in rows:
        assert (row['aupro'] is None) == (row['pixel_auroc'] is None) == (row['map'] in SCORES)
        assert 0 <= row['image_auroc'] <= 1
    of_maps = {(row['defect'], row['map']): row for row in rows}
    assert of_maps['dent', 'knn of patches']['pixel_auroc'] > 0.6


@needs_tools
def test_the_command_writes_the_rows_of_a_category(category, tmp_path, monkeypatch):
    checkpoint = tmp_path / 'epoch_1.pth'
    save_ebm(checkpoint)
    monkeypatch.setattr(sys, 'argv', ['detect', str(checkpoint), '--mvtec', str(category), '--out', str(tmp_path)])
    main()
    rows = json.loads((tmp_path / 'detect.json').read_text())
    assert len(rows) == 20 and not (tmp_path / 'outliers.json').exists()


@needs_tools
def test_rows(images, tmp_path):
    scorer = Scorer(Restorer(save_ebm(tmp_path / 'epoch_1.pth')[0], batch_size=50), images[:10])
    rows = list(of_defects(scorer, images, 'shapes'))
    assert {row['map'] for row in rows} >= {
        'gradient',
        'tokens',
        'residual',
        'knn of patches',
        'total variation',
        'energy',
    }
    assert all(row['polarity'] == 'higher = worse' for row in rows)
    assert all((row['aupro'] is None) == (row['map'] in SCORES) for row in rows)
    noisy = {row['map']: row['pixel_auroc'] for row in rows if row['defect'] == 'noise'}
    assert noisy['total variation'] > 0.8
    blank = [np.full_like(image, 40) for image in images]
    (size,) = [row for row in of_others(scorer, images, dict(blank=blank), 'shapes') if row['map'] == 'png size']
    assert (size['image_auroc'], size['fpr95'], size['spearman_with_png_size']) == (0.0, 1.0, 1.0)
    planted = {(row['planted'], row['method']): row['precision'] for row in of_oddities(scorer, images, {})}
    assert planted['blank', 'cleanvision'] == 1
    assert planted['blank', 'png size'] == 0 and planted['noise', 'png size'] == 1
