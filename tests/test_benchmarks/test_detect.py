"""Defects, baselines, and the rows that the benchmark of detection writes."""

import numpy as np
import pytest
from tiny import save_ebm

from benchmarks.defects import DEFECTS, ODDITIES, png_size, variation
from benchmarks.detect import Scorer, of_defects, of_oddities, of_others
from mmebm.apis import Restorer
from mmebm.datasets import Shapes


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
    assert all(row['polarity'] == 'higher = worse' and row['aupro'] is None for row in rows)
    noisy = {row['map']: row['pixel_auroc'] for row in rows if row['defect'] == 'noise'}
    assert noisy['total variation'] > 0.8
    blank = [np.full_like(image, 40) for image in images]
    (size,) = [row for row in of_others(scorer, images, dict(blank=blank), 'shapes') if row['map'] == 'png size']
    assert (size['image_auroc'], size['fpr95'], size['spearman_with_png_size']) == (0.0, 1.0, 1.0)
    planted = {(row['planted'], row['method']): row['precision'] for row in of_oddities(scorer, images, {})}
    assert planted['blank', 'png size'] == 0 and planted['noise', 'png size'] == 1
