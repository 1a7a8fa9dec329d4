"""Images of any depth and number of channels become pixel units, or a message says what is missing."""

import copy
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmebm.datasets import BrokenImageError, ImageFolder, LoadImage
from mmebm.pixels import to_pixel_units


def shades(channels=3, size=32):
    """An image (H, W[, C]) of values in 0 to 1, both reached."""
    values = np.random.default_rng(0).random((size, size, channels))
    values.flat[:2] = 0, 1
    return values[..., 0] if channels == 1 else values


def write(path, image):
    # Of a TIFF without compression: that of OpenCV for floating point is lossy.
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if Path(path).suffix == '.tif' else []
    assert cv2.imwrite(str(path), image, options)
    return str(path)


def load(path, **options):
    return LoadImage(**options)(dict(img_path=path))['img']


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bits_unchanged_are_pixel_units(tmp_path, suffix, channels):
    image = np.rint(shades(channels) * 65535).astype(np.uint16)
    loaded = load(write(tmp_path / f'deep.{suffix}', image), color_type='unchanged')
    assert loaded.dtype == np.float32 and loaded.shape == image.shape
    np.testing.assert_allclose(loaded, image / 257, rtol=1e-6)


@pytest.mark.parametrize(('color_type', 'shape'), [('color', (32, 32, 3)), ('grayscale', (32, 32))])
def test_twelve_bits_are_rescaled(tmp_path, color_type, shape):
    image = np.rint(shades(1) * 4095).astype(np.uint16)
    loaded = load(write(tmp_path / 'deep.png', image), color_type=color_type, value_range=(0, 4095))
    assert loaded.dtype == np.float32 and loaded.shape == shape
    expected = image / 4095 * 255
    np.testing.assert_allclose(
        loaded, np.broadcast_to(expected.reshape(32, 32, *[1] * (len(shape) - 2)), shape), rtol=1e-5
    )


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged'])
@pytest.mark.parametrize('value_range', [(0, 1), (-1000, 3000)])
def test_floating_point_of_a_given_range(tmp_path, channels, color_type, value_range):
    low, high = value_range
    image = (low + (high - low) * shades(channels)).astype(np.float32)
    loaded = load(write(tmp_path / 'float.tif', image), color_type=color_type, value_range=value_range)
    assert loaded.ndim == {'color': 3, 'grayscale': 2}.get(color_type, image.ndim)
    expected = 255 * shades(channels)
    if channels == 3 and color_type == 'grayscale':
        expected = expected @ [0.114, 0.587, 0.299]
    np.testing.assert_allclose(loaded, np.broadcast_to(expected.T, loaded.T.shape).T, atol=1e-3)


def test_values_out_of_the_range_are_clipped():
    image = np.array([[-50, 0, 50, 100, 150]], np.int16)
    np.testing.assert_allclose(to_pixel_units(image, (0, 100)), [[0, 0, 127.5, 255, 255]])


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
def test_a_range_that_is_not_known_is_asked_for(tmp_path, color_type):
    write(tmp_path / 'float.tif', (shades(1) * 3 - 1).astype(np.float32))
    message = r'float\.tif has float32 values, here from -1 to 2, whose range is not known: set value_range='
    with pytest.raises(ValueError, match=message):  # and not skipped as a broken file
        ImageFolder(data_root=str(tmp_path), pipeline=[dict(type='mmebm.LoadImage', color_type=color_type)])[0]


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite_are_damage(tmp_path, value):
    image = shades(1).astype(np.float32)
    image[3, 3] = value
    with pytest.raises(BrokenImageError, match=r'float\.tif: has values that are not finite'):
        load(write(tmp_path / 'float.tif', image), color_type='unchanged', value_range=(0, 1))


def test_a_range_beyond_the_data_type_is_refused(tmp_path):
    path = write(tmp_path / 'plain.png', np.rint(shades() * 255).astype(np.uint8))
    with pytest.raises(
        ValueError, match=r'value_range=\(0, 4095\) exceeds the uint8 values of .*plain\.png, at most 255'
    ):
        load(path, value_range=(0, 4095))


@pytest.mark.parametrize('value_range', [(255, 0), (0, 0), (1,), (0, 1, 2), 4095, '0,1'])
def test_no_range(value_range):
    with pytest.raises(ValueError, match='value_range=.* must be two numbers, the lower one first'):
        LoadImage(value_range=value_range)


@pytest.mark.parametrize(
    ('bits', 'color_type', 'left'),
    [(10, 'color', '4 grey levels'), (12, 'color', '16 grey levels'), (12, 'unchanged', 'little contrast')],
)
def test_low_values_are_mentioned_once(tmp_path, warnings_logged, bits, color_type, left):
    white = 2**bits - 1
    path = write(tmp_path / 'deep.png', np.rint(shades() * white).astype(np.uint16))
    loader = LoadImage(color_type=color_type)
    for transform in (loader, copy.deepcopy(loader), pickle.loads(pickle.dumps(loader)), loader):
        transform(dict(img_path=path))
        loader = transform
    assert len(warnings_logged) == 3  # a copy of before is not shared; the last two are of one loader
    assert f'deep.png has 16-bit values of at most {white} out of 65535, of which {left}' in warnings_logged[0]
    assert f'hold {bits}-bit data, set value_range=(0, {white})' in warnings_logged[0]


def test_full_sixteen_bits_black_images_and_given_ranges_are_not_mentioned(tmp_path, warnings_logged):
    loader = LoadImage()
    loader(dict(img_path=write(tmp_path / 'full.png', np.rint(shades() * 65535).astype(np.uint16))))
    loader(dict(img_path=write(tmp_path / 'black.png', np.zeros((8, 8), np.uint16))))
    load(write(tmp_path / 'deep.png', np.full((8, 8), 4095, np.uint16)), value_range=(0, 4095))
    assert warnings_logged == []


def test_eight_bits_are_as_opencv_reads_them(tmp_path):
    for suffix in ('jpg', 'png', 'tif'):
        path = write(tmp_path / f'image.{suffix}', np.rint(shades() * 255).astype(np.uint8))
        for color_type, flag in (('color', cv2.IMREAD_COLOR), ('grayscale', cv2.IMREAD_GRAYSCALE)):
            np.testing.assert_array_equal(load(path, color_type=color_type), cv2.imread(path, flag))


@pytest.mark.parametrize('color_type', ['color', 'grayscale'])
def test_the_exif_orientation_is_followed(tmp_path, color_type):
    image, exif = Image.fromarray(np.rint(shades(1)[:16] * 255).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert load(str(tmp_path / 'turned.jpg'), color_type=color_type).shape[:2] == (32, 16)


def test_a_palette_by_pillow(tmp_path):
    Image.new('RGB', (8, 8), (200, 100, 50)).convert('P', palette=Image.Palette.ADAPTIVE).save(tmp_path / 'palette.png')
    path = str(tmp_path / 'palette.png')
    assert (load(path, imdecode_backend='pillow') == [50, 100, 200]).all()
    assert (load(path, color_type='unchanged')[..., :3] == [50, 100, 200]).all()
    with pytest.raises(ValueError, match=r"palette\.png: an image of Pillow's mode P has no colours"):
        load(path, imdecode_backend='pillow', color_type='unchanged')


@pytest.mark.parametrize(('color_type', 'expected'), [('color', [50, 100, 200]), ('unchanged', [50, 100, 200])])
def test_tifffile_reads_red_green_blue(tmp_path, color_type, expected):
    path = write(tmp_path / 'color.tif', np.full((8, 8, 3), [50, 100, 200], np.uint8))
    assert (load(path, imdecode_backend='tifffile', color_type=color_type) == expected).all()


def test_pillow_reads_sixteen_bit_grey_without_saturation(tmp_path):
    path = write(tmp_path / 'deep.png', np.full((8, 8), 100 * 256, np.uint16))
    assert (load(path, imdecode_backend='pillow') == 100).all()


# Images that are loaded already


def loaded(image, **options):
    return LoadImage(**options)(dict(img=image))


def test_a_loaded_image_is_taken():
    image = np.rint(shades() * 255).astype(np.uint8)
    results = loaded(image)
    np.testing.assert_array_equal(results['img'], image)
    assert results['img_shape'] == results['ori_shape'] == (32, 32)
    deep = loaded(image.astype(np.uint16) * 257, color_type='unchanged')['img']
    np.testing.assert_allclose(deep, image, rtol=1e-6)
    np.testing.assert_array_equal(loaded(image.astype(np.float32))['img'], image)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_a_loaded_image_gets_the_channels_of_the_color_type(channels):
    image = np.rint(shades(channels) * 255).astype(np.uint8)
    assert loaded(image)['img'].shape == (32, 32, 3)
    assert loaded(image, color_type='grayscale')['img'].shape == (32, 32)
    assert loaded(image, color_type='unchanged')['img'].shape == image.shape


def test_neither_a_path_nor_an_image():
    with pytest.raises(
        KeyError, match=r"needs results\['img_path'\] or results\['img'\]; there is only \['sample_idx'\]"
    ):
        LoadImage()(dict(sample_idx=0))


def test_other_numbers_of_channels_are_for_unchanged():
    image = np.zeros((8, 8, 7), np.uint8)
    assert loaded(image, color_type='unchanged')['img'].shape == (8, 8, 7)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 7\) cannot be read with color_type='color'.*'unchanged'"):
        loaded(image)


def test_a_decoder_that_is_not_installed(monkeypatch):
    monkeypatch.setattr('mmcv.image.io.TurboJPEG', None)
    with pytest.raises(ImportError, match="imdecode_backend='turbojpeg' needs PyTurboJPEG"):
        LoadImage(imdecode_backend='turbojpeg')


@pytest.mark.parametrize('color_type', ['color', 'grayscale'])
def test_the_order_of_bytes_changes_nothing(tmp_path, color_type):
    tifffile = pytest.importorskip('tifffile')
    image = np.rint(shades(1) * 65535).astype(np.uint16)
    for order, backend in ((order, backend) for order in '<>' for backend in ('cv2', 'pillow', 'tifffile')):
        tifffile.imwrite(tmp_path / 'deep.tif', image, byteorder=order)
        loaded = load(str(tmp_path / 'deep.tif'), imdecode_backend=backend, color_type=color_type)
        gray = loaded[..., 0] if color_type == 'color' else loaded
        assert np.abs(gray - image / 257).max() <= 1, (order, backend)
    array = LoadImage(color_type=color_type).transform(dict(img=image.astype('>u2')))['img']
    assert np.abs((array[..., 0] if color_type == 'color' else array) - image / 257).max() <= 1


def test_tifffile_reads_bits_and_refuses_what_it_does_not_turn_into_colours(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    options = dict(imdecode_backend='tifffile', value_range=(0, 1))
    tifffile.imwrite(tmp_path / 'bits.tif', np.eye(8, dtype=bool), photometric='minisblack')
    assert load(str(tmp_path / 'bits.tif'), **options).shape == (8, 8, 3)
    color = Image.new('RGB', (8, 8), (200, 100, 50))
    color.quantize(4).save(tmp_path / 'palette.tif')
    color.convert('CMYK').save(tmp_path / 'inks.tif')
    tifffile.imwrite(tmp_path / 'white.tif', np.full((8, 8), 200, np.uint8), photometric='miniswhite')
    for name, meaning in (('palette', 'PALETTE'), ('inks', 'SEPARATED'), ('white', 'MINISWHITE')):
        path = str(tmp_path / f'{name}.tif')
        with pytest.raises(ValueError, match=f"{name}.tif: tifffile does not turn {meaning} .*imdecode_backend='cv2'"):
            load(path, imdecode_backend='tifffile')
        assert load(path).shape == (8, 8, 3)


@pytest.mark.parametrize('value_range', [(0, None), ('a', 'b'), (1, 0), 'ab'])
def test_ranges_that_are_none(value_range):
    with pytest.raises(ValueError, match='must be two numbers, the lower one first'):
        LoadImage(value_range=value_range)
