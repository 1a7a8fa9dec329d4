"""Corruptions of images of 16 bits, in the units of their options."""

import numpy as np
import pytest
from mmpretrain.registry import TRANSFORMS

from mmebm.corruptions import CorruptedPair, Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle


def picture(dtype=np.uint8):
    image = np.random.default_rng(0).integers(40, 216, (32, 32, 3)).astype(np.uint8)
    return image if dtype == np.uint8 else image.astype(dtype) * dtype(257)


@pytest.mark.parametrize(
    'corruption',
    [
        PatchMask(patch_size=4, fill=127.0, seed=0),
        PatchMask(patch_size=4, fill='noise', seed=0),
        PatchMask(patch_size=4, seed=0),
        PatchShuffle(patch_size=4, seed=0),
        Downsample(seed=0),
        GaussianNoise(10.0, seed=0),
        Grayscale(seed=0),
    ],
)
def test_sixteen_bits_are_corrupted_as_eight(corruption):
    deep, plain = (corruption(dict(img=picture(dtype), sample_idx=0))['img'] for dtype in (np.uint16, np.uint8))
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep / 257, plain, atol=0.51)  # eight bits are rounded


def test_what_is_not_corrupted_stays_exactly():
    img = np.random.default_rng(0).integers(0, 2**16, (64, 64), dtype=np.uint16)
    corrupted = PatchMask(0.5, patch_size=1, fill='mean', seed=0)(dict(img=img, sample_idx=0))['img']
    assert (corrupted == img).mean() >= 0.5


def test_pairs_of_sixteen_bits_are_in_pixel_units():
    corrupted, clean = CorruptedPair(GaussianNoise(20.0))(dict(img=picture(np.uint16)))['img']
    assert corrupted.dtype == clean.dtype == np.float32
    np.testing.assert_allclose(clean, picture(), rtol=1e-6)
    assert abs((corrupted - clean).std() - 20) < 1


def test_an_inferencers_image_stays_clean():
    pair = CorruptedPair(GaussianNoise(seed=0))
    image = dict(img=picture(), img_shape=(32, 32), ori_shape=(32, 32))
    np.testing.assert_array_equal(pair(dict(image))['img'], picture())
    np.testing.assert_allclose(pair(image | dict(img=picture(np.uint16)))['img'], picture(), rtol=1e-6)
    for of_a_data_set in (dict(sample_idx=0), dict(sample_idx=0, img_path='a.png')):
        assert isinstance(pair(image | of_a_data_set)['img'], list)


@pytest.mark.parametrize('before', [dict(type='MultiView', num_views=2, transforms=[[]]),
                                    dict(type='mmebm.CorruptedPair', corruption=[])])  # fmt: skip
def test_a_pair_of_several_views_is_refused(before):
    results = TRANSFORMS.build(before)(dict(img=picture(), sample_idx=0))
    with pytest.raises(TypeError, match=r"results\['img'\] is a list, not one image: there is a MultiView or another"):
        CorruptedPair(Grayscale())(results)
