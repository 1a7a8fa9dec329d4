"""Image files as they come: read rightly, or counted, named once and listed."""

import io
import os
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from PIL import Image, ImageOps, features

from mmebm.datasets import BrokenImageError, ImageFolder, LoadImage
from mmebm.datasets.decoding import pixels_in_header
from mmebm.engine import BrokenImagesHook

RED, GREEN, BLUE = 200, 100, 50
PIPELINE = [{'type': 'mmebm.LoadImage'}]


def content(kind, mode='RGB', size=(16, 16), **options):
    file = io.BytesIO()
    Image.new('RGB', size, (RED, GREEN, BLUE)).convert(mode, palette=Image.Palette.ADAPTIVE).save(file, kind, **options)
    return file.getvalue()


def huge_png(width, height):
    """A PNG of zeros of any size, in few bytes, with the data left out."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(b'\0' * 1000)), (b'IEND', b'')]
    parts = [struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def animation(kind):
    frames = [Image.new('RGB', (16, 16), color) for color in [(RED, GREEN, BLUE), (0, 0, 0)]]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned():
    """A JPEG of 16 x 8 pixels that is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return content('JPEG', size=(16, 8), quality=100, exif=exif)


SOUND = {
    'cmyk.jpg': content('JPEG', 'CMYK', quality=100),
    'a JPEG by name.jpg': content('PNG'),
    'a PNG by name.png': content('JPEG', quality=100),
    'palette.png': content('PNG', 'P', (16, 16)),
    'moving.gif': animation('GIF'),
    'moving.png': animation('PNG'),
    'moving.webp': animation('WEBP'),
    'pages.tif': animation('TIFF'),
    'pixel.png': content('PNG', size=(1, 1)),
    'wide.png': content('PNG', size=(30_000, 1)),
    'turned.jpg': turned(),
    os.fsdecode(b'\xff\xfe.png'): content('PNG'),
    '\u00e4 \U0001f600\n.png': content('PNG'),
}
BROKEN = {
    'truncated.jpg': content('JPEG')[:300],
    'truncated.png': content('PNG')[:50],
    'truncated.gif': content('GIF')[:20],
    'truncated.webp': content('WEBP')[:40],
    'truncated.bmp': content('BMP')[:40],
    'text.jpg': b'<html>not found</html>',
    'bomb.png': huge_png(30_000, 30_000),
    'bomb.gif': b'GIF89a' + struct.pack('<HH', 65_535, 65_535) + content('GIF')[10:],
    os.fsdecode(b'broken \xff.png'): b'no image',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sound and broken files, and some that cannot be read at all."""
    monkeypatch.chdir(tmp_path)
    root = Path('images')
    (root / 'below').mkdir(parents=True)
    for name, data in (SOUND | BROKEN).items():
        (root / name).write_bytes(data)
    (root / 'empty.jpg').touch()
    (root / 'absent.jpg').symlink_to('nowhere.jpg')
    (root / 'loop.jpg').symlink_to('loop.jpg')
    (root / 'below' / 'up').symlink_to('..')
    os.mkfifo(root / 'pipe.jpg')
    return str(root)


def read(name, data, tmp_path, **options):
    (tmp_path / name).write_bytes(data)
    return LoadImage(**options)({'img_path': str(tmp_path / name)})['img']


@pytest.mark.parametrize('name', SOUND)
def test_sound_files_are_read(name, tmp_path):
    image = read(name, SOUND[name], tmp_path)
    with Image.open(io.BytesIO(SOUND[name])) as file:
        size = file.size[::-1] if name == 'turned.jpg' else file.size
    assert image.dtype == np.uint8 and image.shape == (*size[::-1], 3)
    assert np.abs(image.astype(int) - [BLUE, GREEN, RED]).max() <= (32 if name in ('moving.webp',) else 4)


@pytest.mark.parametrize('name', BROKEN)
def test_broken_files_are_named(name, tmp_path):
    with pytest.raises(BrokenImageError, match=name.partition(' ')[0]) as caught:
        read(name, BROKEN[name], tmp_path)
    str(caught.value).encode()  # so that a log can take it


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_a_bomb_is_refused_at_once(backend, tmp_path):
    begin = time.perf_counter()
    with pytest.raises(BrokenImageError, match=r'30000 x 30000 pixels, more than max_pixels=178956970 of LoadImage'):
        read('bomb.png', BROKEN['bomb.png'], tmp_path, imdecode_backend=backend)
    assert time.perf_counter() - begin < 1


def test_the_limit_is_an_option(tmp_path):
    assert read('a.png', content('PNG'), tmp_path, max_pixels=256).shape == (16, 16, 3)
    with pytest.raises(BrokenImageError, match='16 x 16 pixels, more than max_pixels=255'):
        read('a.png', content('PNG'), tmp_path, max_pixels=255)
    with pytest.raises(ValueError, match='max_pixels must be a whole number of at least 1, not 0'):
        LoadImage(max_pixels=0)


def test_a_folder_of_all_kinds(folder, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # Pillow's of bombs
        dataset = ImageFolder(data_root=folder, pipeline=PIPELINE)
        np.random.seed(0)
        for _ in range(2):
            assert all(dataset[i]['img'].ndim == 3 for i in range(len(dataset)))
    assert len(dataset) == len(SOUND) + len(BROKEN) and dataset.num_broken == len(BROKEN)
    hook, log = BrokenImagesHook(), MMLogger.get_current_instance()
    log.addHandler(caplog.handler)
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), work_dir='.', logger=log, iter=0)
    hook.before_train(runner)
    hook.after_train(runner)
    log.removeHandler(caplog.handler)
    lines = [line.split('\t') for line in Path('broken_images.txt').read_text().split('\n')[:-1]]
    assert sorted(path.rpartition('/')[2] for fault, path in lines if fault == 'broken') == sorted(
        name.replace('\udcff', '\\xff') for name in BROKEN
    )
    others = {path.removeprefix('images/'): fault for fault, path in lines if fault != 'broken'}
    assert others == {
        'empty.jpg': 'empty',
        'absent.jpg': 'broken links',
        'loop.jpg': 'broken links',
        'below/up': 'linked to a folder above',
        'pipe.jpg': 'no regular files',
    }
    assert f'{len(lines)} image files could not be used' in caplog.text and 'broken_images.txt' in caplog.text


def test_a_resumed_training_keeps_what_was_listed(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in 'ab':
        (tmp_path / 'images' / f'{name}.jpg').write_bytes(content('JPEG') if name == 'a' else b'no image')
    listed = f'broken\t{tmp_path}/images/'
    (tmp_path / 'broken_images.txt').write_text(f'{listed}0.jpg\n')
    for iteration, expected in ((1, ['0', 'b']), (0, ['b'])):  # of a resumed training, and of a new one
        dataset = ImageFolder(data_root=str(tmp_path / 'images'), pipeline=PIPELINE)
        assert dataset.prepare_data(1) is None
        runner = SimpleNamespace(
            train_dataloader=SimpleNamespace(dataset=dataset), work_dir=str(tmp_path), iter=iteration
        )
        hook = BrokenImagesHook()
        hook.before_train(runner)
        hook.after_train_epoch(runner)
        lines = (tmp_path / 'broken_images.txt').read_text().splitlines()
        assert lines == [f'{listed}{name}.jpg' for name in expected]


def test_an_image_that_a_pipeline_drops_in_a_test(tmp_path):
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).write_bytes(content('JPEG') if name == 'a.jpg' else b'no image')
    pipeline = [dict(type='mmebm.LoadImage', ignore_empty=True)]
    dataset = ImageFolder(data_root=str(tmp_path), pipeline=pipeline, test_mode=True)
    with pytest.raises(RuntimeError, match=f'Image 1 of .*{tmp_path.name}.*: the pipeline returned None'):
        dataset[1]


def tiff(big):
    file = io.BytesIO()
    Image.new('RGB', (16, 16)).save(file, 'TIFF', big_tiff=big)
    return bytearray(file.getvalue())


def test_damage_whose_errors_are_not_of_decoding(tmp_path):
    plain, big = tiff(big=False), tiff(big=True)
    first = struct.unpack_from('<I', plain, 4)[0]
    [width] = [i for i in range(first + 2, len(plain), 12) if struct.unpack_from('<H', plain, i)[0] == 0x100][:1]
    plain[width + 2] = 2  # text
    struct.pack_into('<Q', big, 8, 2**64 - 1)  # the place of the first page
    for data in (plain, big):
        with pytest.raises(BrokenImageError):
            read('damaged.tif', bytes(data), tmp_path)


@pytest.mark.skipif(not features.check('avif'), reason='this Pillow cannot write AVIF')
@pytest.mark.parametrize('orientation', [1, 6])
def test_a_wrong_byte_in_avif(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = content('AVIF', exif=exif)
    found = set()
    for place in range(8, len(data)):
        try:
            read('damaged.avif', data[:place] + b'\0' + data[place + 1 :], tmp_path)
        except BrokenImageError:
            found.add(place)
    assert found


def test_a_folder_of_broken_files_stops_at_once(tmp_path, caplog):
    for i in range(5):
        (tmp_path / f'{i}.jpg').write_bytes(b'no image')
    dataset = ImageFolder(data_root=str(tmp_path), pipeline=PIPELINE)
    with pytest.raises(RuntimeError, match=r'All 5 images in .* are broken, the last one: .*\.jpg: cannot be decoded'):
        dataset[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_images_are_read_or_broken(tmp_path, data):
    kind = data.draw(st.sampled_from(['JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM', 'JPEG2000']))
    damaged = bytearray(content(kind))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged), 60) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    backend = data.draw(st.sampled_from(['cv2', 'pillow']))
    color = data.draw(st.sampled_from(['color', 'grayscale', 'unchanged']))
    try:
        image = read('a.img', bytes(damaged), tmp_path, imdecode_backend=backend, color_type=color, max_pixels=10**6)
        assert image.shape[0] * image.shape[1] <= 10**6
    except BrokenImageError as error:
        assert 'a.img' in str(error)
    except ValueError as error:  # of an option that does not fit the file
        assert str(error).startswith('LoadImage: ') and 'a.img' in str(error)


def oriented(kind, orientation):
    """A picture of 24 x 16 pixels without two alike, lossless, with an EXIF tag of its orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    options = dict(WEBP=dict(lossless=True), AVIF=dict(quality=100, subsampling='4:4:4')).get(kind, {})
    Image.fromarray(values).save(file, kind, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'AVIF'])
def test_images_are_turned_as_their_tag_says(kind, orientation, tmp_path):
    file = oriented(kind, orientation)
    with Image.open(io.BytesIO(file)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]
    found = read('a.img', file, tmp_path)
    assert found.shape == expected.shape == ((16, 24, 3) if orientation < 5 else (24, 16, 3))
    assert np.abs(found.astype(int) - expected).mean() < (4 if kind == 'AVIF' else 0.01)  # two decoders
    assert read('a.img', file, tmp_path, color_type='color_ignore_orientation').shape == (16, 24, 3)


HEADERS = {
    'a PAM': b'P7\nWIDTH 12000\nHEIGHT 9000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n',
    'another': b'P7\n# by a camera\nHEIGHT 9000\nWIDTH 12000\nDEPTH 3\nMAXVAL 255\nENDHDR\n',
    'hidden': b'P7\r# WIDTH 1 HEIGHT 1 \nWIDTH\t12000\nHEIGHT  9000\nDEPTH 3\nMAXVAL 255\nENDHDR\n',
    'PFM': b'PF\n12000 9000\n-1.0\n',
    'Radiance': b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 9000 +X 12000\n',
}


@pytest.mark.parametrize('name', HEADERS)
def test_sizes_that_pillow_does_not_know_are_limited_too(name, tmp_path):
    with pytest.raises(BrokenImageError, match='has 12000 x 9000 pixels, more than max_pixels=100000000'):
        read('a.jpg', HEADERS[name] + bytes(100), tmp_path, max_pixels=10**8)


def test_pillow_keeps_its_own_limit():
    limit = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(pixels_in_header, [content('JPEG')] * 400)} == {(16, 16)}
    assert Image.MAX_IMAGE_PIXELS == limit is not None
