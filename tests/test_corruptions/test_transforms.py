import copy
import random
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from scipy import ndimage

from mmebm.corruptions import CorruptedPair, Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle
from mmebm.corruptions.functional import as_type_of, patchify

CORRUPTIONS = [
    PatchMask(patch_size=4),
    PatchMask(patch_size=4, layout='block', fill='noise'),
    PatchShuffle(patch_size=4),
    Downsample((1.5, 3.0)),
    GaussianNoise((5.0, 60.0)),
    Grayscale(),
]


def picture(height=16, width=24, channels=3, dtype=np.uint8, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize('corruption', CORRUPTIONS)
@settings(max_examples=20, deadline=None)
@given(
    channels=st.sampled_from([None, 1, 3, 4, 7]), dtype=st.sampled_from([np.uint8, np.float32]), seed=st.integers(0, 99)
)
def test_properties_of_every_corruption(corruption, channels, dtype, seed):
    img = picture(channels=channels, dtype=dtype)
    before = img.copy()
    params = corruption.sample(img.shape, np.random.default_rng(seed))
    corrupted = corruption.apply(img, params)
    assert corrupted.shape == img.shape and corrupted.dtype == img.dtype
    np.testing.assert_array_equal(img, before)  # the input is left as it is
    np.testing.assert_array_equal(corruption.apply(img, params), corrupted)  # applying draws nothing
    again = corruption.sample(img.shape, np.random.default_rng(seed))
    np.testing.assert_array_equal(corruption.apply(img, again), corrupted)  # replay from the seed


@settings(max_examples=50, deadline=None)
@given(ratio=st.floats(0, 1), seed=st.integers(0, 99), layout=st.sampled_from(['random', 'block']))
def test_mask_hides_exactly_its_share_of_whole_patches(ratio, seed, layout):
    mask = PatchMask(ratio, patch_size=4, layout=layout, fill=300.0)
    img = picture(32, 32, dtype=np.float32)
    params = mask.sample(img.shape, np.random.default_rng(seed))
    hidden = (patchify(mask.apply(img, params), 4, 4) == 300).all(axis=(1, 2, 3))
    assert hidden.sum() == round(ratio * 64)
    np.testing.assert_array_equal(hidden, params['mask'].reshape(-1))  # True = masked
    np.testing.assert_array_equal(mask.apply(img, params)[~params['mask'].repeat(4, 0).repeat(4, 1)],
                                  img[~params['mask'].repeat(4, 0).repeat(4, 1)])  # fmt: skip


def test_random_masks_hide_every_patch_equally_often():
    mask = PatchMask(0.25, patch_size=4)
    rng = np.random.default_rng(0)
    share = np.mean([mask.sample((16, 16, 3), rng)['mask'] for _ in range(4000)], axis=0)
    np.testing.assert_allclose(share, 0.25, atol=0.03)  # four standard deviations


def test_block_masks_are_in_fewer_pieces_than_random_ones():
    def pieces(layout):
        mask, rng = PatchMask(0.4, patch_size=1, layout=layout), np.random.default_rng(0)
        return np.mean([ndimage.label(mask.sample((14, 14, 3), rng)['mask'])[1] for _ in range(50)])

    assert pieces('block') < pieces('random') / 3


def test_fills_of_the_mask():
    img = np.zeros((4, 8, 3), np.uint8)
    img[:, :4] = (10, 20, 30)
    img[:, 4:] = (200, 200, 200)
    params = {'mask': np.array([[False, True]])}
    np.testing.assert_array_equal(
        PatchMask(patch_size=4).apply(img, params)[:, 4:], np.broadcast_to((10, 20, 30), (4, 4, 3))
    )
    np.testing.assert_array_equal(PatchMask(patch_size=4, fill=[1, 2, 3]).apply(img, params)[0, 5], [1, 2, 3])
    everything = {'mask': np.array([[True, True]])}
    np.testing.assert_array_equal(PatchMask(patch_size=4).apply(img, everything)[0, 0], [105, 110, 115])
    large = np.full((224, 224, 3), 200, np.float16)  # whose sum is beyond float16
    half = PatchMask(0.5, patch_size=112).apply(large, {'mask': np.array([[True, False], [False, True]])})
    np.testing.assert_array_equal(half, large)
    noise = PatchMask(1.0, patch_size=4, fill='noise')
    values = noise.apply(picture(64, 64), noise.sample((64, 64, 3), np.random.default_rng(0)))
    assert abs(values.mean() - 127.5) < 3 and values.min() == 0 and values.max() == 255


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_sorting_moves_exactly_its_share_of_the_patches(share, seed):
    shuffle = PatchShuffle(patch_size=4, share=share)
    order = shuffle.sample((32, 32, 3), np.random.default_rng(seed))['order']
    moved = round(share * 64)
    assert (order != np.arange(64)).sum() == (moved if moved > 1 else 0)  # one patch alone has nowhere to go
    img = picture(32, 32)
    np.testing.assert_array_equal(patchify(shuffle.apply(img, {'order': order}), 4, 4), patchify(img, 4, 4)[order])
    inverse = shuffle.apply(shuffle.apply(img, {'order': order}), {'order': np.argsort(order)})
    np.testing.assert_array_equal(inverse, img)


def test_downsampling_nearest_by_two_gives_block_means():
    img = picture(8, 8, dtype=np.float32)
    small = img.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    corrupted = Downsample(2, 'nearest').apply(img, {'factor': 2})
    np.testing.assert_allclose(corrupted, small.repeat(2, 0).repeat(2, 1), rtol=1e-5)


def test_downsampling_keeps_a_flat_image_and_by_one_any_image():
    flat = np.full((9, 15, 5), 77, np.uint8)
    np.testing.assert_array_equal(Downsample(4).apply(flat, {'factor': 4}), flat)
    np.testing.assert_array_equal(Downsample(1).apply(picture(), {'factor': 1}), picture())


def test_noise_has_its_deviation_in_pixel_units():
    img = np.full((200, 200, 3), 128, np.float32)
    noise = GaussianNoise(20.0)
    residual = noise.apply(img, noise.sample(img.shape, np.random.default_rng(0))) - img
    assert abs(residual.std() - 20) < 0.3 and abs(residual.mean()) < 0.3
    sigmas = [
        GaussianNoise((5.0, 15.0)).sample((64, 64, 3), np.random.default_rng(i))['noise'].std() for i in range(99)
    ]
    assert 4.8 < min(sigmas) < 6 and 14 < max(sigmas) < 15.3


def test_uint8_is_clipped_not_wrapped():
    img = np.array([[[250, 5, 128]]], np.uint8)
    np.testing.assert_array_equal(GaussianNoise().apply(img, {'noise': np.full((1, 1, 3), 20.6)}), [[[255, 26, 149]]])
    np.testing.assert_array_equal(GaussianNoise().apply(img, {'noise': np.full((1, 1, 3), -20.6)}), [[[229, 0, 107]]])


def test_boolean_images_are_rounded():
    img = np.array([[[True, False]]])
    np.testing.assert_array_equal(GaussianNoise().apply(img, {'noise': np.full((1, 1, 2), 0.4)}), img)
    np.testing.assert_array_equal(GaussianNoise().apply(img, {'noise': np.array([[[-0.6, 0.6]]])}), ~img)


def test_luma_weights():
    def gray(img, **kwargs):
        corruption = Grayscale(**kwargs)
        return corruption.apply(img, corruption.sample(img.shape, np.random.default_rng(0)))

    blue, red = np.array([[[255, 0, 0]]], np.uint8), np.array([[[0, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(gray(blue), [[[29, 29, 29]]])  # 0.114 * 255
    np.testing.assert_array_equal(gray(red), [[[76, 76, 76]]])  # 0.299 * 255
    np.testing.assert_allclose(gray(np.array([[[1.0, 2, 3, 6]]])), [[[3.0] * 4]])
    np.testing.assert_allclose(gray(np.array([[[1.0, 2]]]), weights=[0.25, 0.75]), [[[1.75] * 2]])
    with pytest.raises(ValueError, match='weights must be 3 numbers'):
        gray(blue, weights=[0.5, 0.5])


@pytest.mark.parametrize('seed', [-1, 0.5])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match=f'Grayscale: seed must be a whole number of at least 0, not {seed}'):
        Grayscale(seed=seed)


def test_pair_keeps_the_clean_image_and_names_the_corruption():
    img = picture()
    pair = CorruptedPair(dict(type='mmebm.GaussianNoise', sigma=20.0))
    results = pair(dict(img=img.copy(), sample_idx=0))
    np.testing.assert_array_equal(results['img'][1], img)
    assert results['corruption'] == 'denoise' and (results['img'][0] != img).mean() > 0.9


def test_chains_and_mixtures():
    chain = CorruptedPair([dict(type='mmebm.Grayscale'), dict(type='mmebm.PatchMask', patch_size=4, fill=0.0)])
    results = chain(dict(img=picture()))
    corrupted = results['img'][0]
    assert results['corruption'] == 'color+mask'
    assert (corrupted[..., 0] == corrupted[..., 2]).all() and (patchify(corrupted, 4, 4) == 0).all((1, 2, 3)).any()
    mixture = CorruptedPair(
        dict(type='RandomChoice', transforms=[[dict(type='mmebm.Grayscale')], [dict(type='mmebm.GaussianNoise')]])
    )
    np.random.seed(0)
    assert {mixture(dict(img=picture()))['corruption'] for _ in range(20)} == {'color', 'denoise'}


def test_any_other_transform_is_a_corruption():
    pair = CorruptedPair(dict(type='mmcv.RandomFlip', prob=1.0))
    results = pair(dict(img=picture(), img_shape=(16, 24)))
    np.testing.assert_array_equal(results['img'][0], results['img'][1][:, ::-1])
    assert results['corruption'] == 'custom'


def test_strength_is_where_on_the_line_to_the_corrupted_image():
    img = picture()

    def invert(results):
        return results | dict(img=255 - results['img'])

    half = CorruptedPair(invert, strength=0.25)(dict(img=img))['img'][0]
    np.testing.assert_allclose(half, 0.75 * img + 0.25 * (255.0 - img), atol=0.5)
    np.random.seed(0)
    drawn = CorruptedPair(invert, strength=(0.2, 0.6))
    strengths = [(drawn(dict(img=np.zeros((1, 1, 3), np.uint8)))['img'][0] / 255).mean() for _ in range(200)]
    assert min(strengths) == pytest.approx(0.2, abs=0.01) and max(strengths) == pytest.approx(0.6, abs=0.01)
    assert np.mean(strengths) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize('seed', [None, 1])
def test_each_of_several_views_is_a_draw_of_its_own(seed):
    chain = [dict(type='mmebm.GaussianNoise', seed=seed), dict(type='mmebm.PatchMask', patch_size=4, seed=seed)]
    single, several = CorruptedPair(chain), CorruptedPair(chain, num_views=3)
    views = several(dict(img=picture(), sample_idx=3))['img']
    np.testing.assert_array_equal(views[3], picture())
    assert len(views) == 4 and all((views[a] != views[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))
    is_first = (views[0] == single(dict(img=picture(), sample_idx=3))['img'][0]).all()
    assert is_first == (seed is not None)
    assert (views[1] == several(dict(img=picture(), sample_idx=3))['img'][1]).all() == (seed is not None)


def test_a_transform_that_leaves_the_range_is_clipped():
    pair = CorruptedPair(lambda results: results | dict(img=results['img'].astype(np.float32) + 40.4))
    corrupted, clean = pair(dict(img=np.array([[[240, 10, 100]]], np.uint8)))['img']
    np.testing.assert_array_equal(corrupted, [[[255, 50, 140]]])
    assert corrupted.dtype == clean.dtype


@pytest.mark.parametrize(
    ('dtype', 'value', 'image_dtype', 'expected'),
    [
        (np.int32, 270, np.uint8, 255),
        (np.int32, -3, np.uint8, 0),
        (np.int8, -3, np.uint8, 0),
        (np.uint16, 256, np.uint8, 255),
        (np.int64, -300, np.int8, -128),
        (np.uint8, 200, np.uint16, 200),
        (np.float16, 270.4, np.uint8, 255),
        (np.float32, 99.6, np.uint8, 100),
        (np.int32, 270, np.float32, 270),
    ],
)
@pytest.mark.filterwarnings('error')
def test_values_of_any_other_type_are_clipped(dtype, value, image_dtype, expected):
    converted = as_type_of(np.zeros(1, image_dtype), np.array([value], dtype))
    assert converted.tolist() == [expected] and converted.dtype == image_dtype


def test_a_seed_fixes_the_corruption_of_each_sample_but_not_of_all_alike():
    pair = CorruptedPair(dict(type='mmebm.GaussianNoise', seed=1))
    first, again, other = (pair(dict(img=picture(), sample_idx=i))['img'][0] for i in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    with pytest.raises(KeyError, match='sample_idx'):
        pair(dict(img=picture()))


def test_the_links_of_a_chain_draw_independently_with_the_same_seed():
    img = np.arange(64, dtype=np.float32).reshape(8, 8)  # 64 patches of one pixel
    mask = PatchMask(0.5, patch_size=1, fill=-1.0, seed=0)
    shuffles = [PatchShuffle(patch_size=1, share=0.5, seed=0) for _ in range(2)]
    both = []
    for sample_idx in range(50):
        results = mask(dict(img=img, sample_idx=sample_idx))
        chosen = [results['img'] == -1]
        for shuffle in shuffles:
            results = shuffle(results | dict(img=img))
            chosen.append(results['img'] != img)
        assert results['corruption'] == 'mask+sort+sort' and [one.sum() for one in chosen] == [32, 32, 32]
        both.append([(chosen[i] & chosen[j]).sum() for i, j in ((0, 1), (0, 2), (1, 2))])
    np.testing.assert_allclose(np.mean(both, axis=0), 16, atol=1.2)  # four standard deviations


@pytest.mark.parametrize('before', [{}, {'corruption': None}])
def test_the_first_link_draws_from_the_seed_and_the_index_alone(before):
    shuffle = PatchShuffle(patch_size=4, seed=7)
    order = shuffle.sample((16, 24, 3), np.random.default_rng((7, 3)))
    results = shuffle(dict(img=picture(), sample_idx=3, **before))
    np.testing.assert_array_equal(results['img'], shuffle.apply(picture(), order))


class _Albumentations:
    """Stands in for mmpretrain's, whose ``aug`` (Albumentations' ``Compose``) has generators of its own."""

    def __init__(self, seed=None):
        self.aug = types.SimpleNamespace(seed=seed, set_random_state=self._set_random_state)
        self._set_random_state(np.random.default_rng(seed), random.Random(seed))

    def _set_random_state(self, random_generator, py_random):
        self.random_generator, self.py_random = random_generator, py_random

    def __call__(self, results):
        numbers = [*self.random_generator.integers(2**53, size=2), self.py_random.getrandbits(53)]
        return results | dict(img=np.array([[numbers]], np.float64))


def _drawn_in_a_worker(pair, seed):
    worker = copy.deepcopy(pair)  # as a fork has it
    np.random.seed(seed)
    return [tuple(worker(dict(img=np.zeros((1, 1, 3))))['img'][0].ravel()) for _ in range(3)]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda albu: albu,
        lambda albu: [dict(type='mmebm.Grayscale'), albu],
        lambda albu: dict(type='RandomChoice', transforms=[[albu], [dict(type='Compose', transforms=[albu])]]),
        lambda albu: dict(type='RandomApply', transforms=albu, prob=1.0),
    ],
)
def test_albumentations_follow_numpy_at_any_depth(wrap):
    pair = CorruptedPair(wrap(_Albumentations()))
    first, second = _drawn_in_a_worker(pair, 5), _drawn_in_a_worker(pair, 6)
    assert len({number for image in first + second for number in image}) == 18  # none twice
    assert _drawn_in_a_worker(pair, 5) == first


def test_two_albumentations_of_a_chain_draw_different_numbers():
    first, second = _Albumentations(), _Albumentations()
    CorruptedPair([first, second])(dict(img=np.zeros((1, 1, 3))))
    assert first.random_generator is second.random_generator and first.py_random is second.py_random


def test_albumentations_with_a_seed_keep_it():
    pair = CorruptedPair(_Albumentations(seed=1))
    assert _drawn_in_a_worker(pair, 5) == _drawn_in_a_worker(pair, 6)


def test_other_corruptions_draw_nothing_for_albumentations():
    np.random.seed(5)
    CorruptedPair(lambda results: results)(dict(img=picture()))
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()


def test_without_a_seed_the_corruption_follows_numpy():
    pair = CorruptedPair(dict(type='mmebm.GaussianNoise'))
    np.random.seed(5)
    first, second = pair(dict(img=picture()))['img'][0], pair(dict(img=picture()))['img'][0]
    np.random.seed(5)
    np.testing.assert_array_equal(pair(dict(img=picture()))['img'][0], first)
    assert (first != second).any()


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: PatchMask(1.2), r'PatchMask: ratio must be in \[0, 1\], not 1.2'),
        (lambda: PatchMask(fill='median'), "fill must be 'mean', 'noise' or a colour, not 'median'"),
        (lambda: PatchShuffle(share=-0.1), r'PatchShuffle: share must be in \[0, 1\], not -0.1'),
        (lambda: Downsample(0.5), 'Downsample: factor must be at least 1'),
        (lambda: Downsample(2, 'cubic'), "interpolation must be one of .*'bicubic'.* not 'cubic'"),
        (lambda: GaussianNoise((9.0, 3.0)), 'GaussianNoise: sigma must be at least 0, or a range'),
        (lambda: GaussianNoise((10, 20, 3)), r'sigma must be .* two such numbers, lower first, not \(10, 20, 3\)'),
        (lambda: Downsample([5]), r'Downsample: factor must be at least 1, .* two such numbers.*, not \[5\]'),
        (lambda: Downsample([]), r'factor must be at least 1, .*, not \[\]'),
        (lambda: GaussianNoise('50'), "sigma must be at least 0, .*, not '50'"),
        (lambda: PatchMask('0.6'), r"PatchMask: ratio must be in \[0, 1\], not '0.6'"),
        (lambda: PatchMask(patch_size=16.0), 'PatchMask: patch_size must be a whole number, at least 1, not 16.0'),
        (lambda: PatchShuffle(patch_size=(8, 8)), r'patch_size must be a whole number, at least 1, not \(8, 8\)'),
        (lambda: PatchMask(fill=None), "fill must be 'mean', 'noise' or a colour, not None"),
        (lambda: PatchMask(fill=[0, float('nan'), 0]), "fill must be 'mean', 'noise' or a colour, not .*nan"),
        (lambda: GaussianNoise(float('inf')), 'sigma must be at least 0, .*, not inf'),
        (lambda: CorruptedPair([], strength='0.5'), r"strength must be in \[0, 1\], or a range within, not '0.5'"),
        (lambda: CorruptedPair([], num_views=0), 'num_views must be a whole number of at least 1, not 0'),
        (lambda: CorruptedPair([], strength=None), 'strength must be in .*, not None'),
        (lambda: CorruptedPair([], strength=(0.5, 1.5)), r'CorruptedPair: strength must be in \[0, 1\], or a range'),
        (lambda: PatchMask(fill=[1, 2, 3])(dict(img=picture(16, 16, None))),
         r'fill must be one number or one per channel, of which the image has 1, not \[1, 2, 3\]'),
        (lambda: PatchMask(fill=(1, 2, 3))(dict(img=picture(16, 16, 1))), r'has 1, not \(1, 2, 3\)'),
        (lambda: PatchMask(fill=[1, 2, 3])(dict(img=picture(16, 16, 4))), r'PatchMask: fill .* has 4, not \[1, 2, 3\]'),
        (lambda: Grayscale(weights=0.3), 'Grayscale: weights must be a list, one number per channel, not 0.3'),
        (lambda: PatchMask(patch_size=16)(dict(img=picture(30))), 'patch_size 16 does not divide the image size 30x24'),
        (lambda: PatchShuffle(patch_size=5)(dict(img=picture())), 'patch_size 5 does not divide the image size 16x24'),
    ],
)  # fmt: skip
def test_bad_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_shares_of_a_mixture_whose_sum_is_not_exactly_one():
    noise, mask, blur = (
        [dict(type='mmebm.GaussianNoise')],
        [dict(type='mmebm.PatchMask')],
        [dict(type='mmebm.Downsample')],
    )
    mixture = dict(type='mmcv.RandomChoice', transforms=[noise, mask, blur])
    with pytest.raises(ValueError, match=r'CorruptedPair: .*prob.* as in \[0.7, 0.2, 1 - \(0.7 \+ 0.2\)\]'):
        CorruptedPair(mixture | dict(prob=[0.7, 0.2, 0.1]))
    with pytest.raises(ValueError, match=r'refuses its options \(.*Got 3 vs 2'):
        CorruptedPair(mixture | dict(prob=[0.5, 0.5]))
    CorruptedPair(mixture | dict(prob=[0.7, 0.2, 1 - (0.7 + 0.2)]))


@pytest.mark.parametrize('fill', [np.float32(7), (7, 7, 7), 7])
def test_colours_may_be_of_numpy(fill):
    hidden = PatchMask(1, patch_size=np.int64(8), fill=fill)(dict(img=picture()))['img']
    assert (hidden == 7).all()


def test_an_unknown_corruption_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="unknown corruption; mmebm has .*'mmebm.PatchMask'.*PatchMsk"):
        CorruptedPair(dict(type='mmebm.PatchMsk'))


def test_a_corruption_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r'from \(16, 24, 3\) to \(8, 8, 3\)'):
        CorruptedPair(dict(type='mmcv.Resize', scale=(8, 8)))(dict(img=picture()))


def test_pack_inputs_carries_the_pair():
    pipeline = Compose(
        [
            dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.Grayscale')),
            dict(type='PackInputs', meta_keys=('corruption',)),
        ]
    )
    packed = pipeline(dict(img=picture()))
    assert [tuple(view.shape) for view in packed['inputs']] == [(3, 16, 24)] * 2
    assert packed['data_samples'].corruption == 'color'
