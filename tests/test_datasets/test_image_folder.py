import copy
import pickle

import cv2
import numpy as np
import pytest
from mmpretrain.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from mmebm.datasets import BrokenImageError, ImageFolder, LoadImage

RED, GREEN, BLUE = 200, 100, 50
PIPELINE = [{'type': 'mmebm.LoadImage'}]


def _save(path, size=(16, 16), mode='RGB', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (RED, GREEN, BLUE)).convert(mode).save(path, **options)
    return path


def _noise(size=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def _truncate(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def _folder(root, sound=3, broken=1):
    for i in range(sound):
        _save(root / f'sound_{i}.png')
    for i in range(broken):
        (root / f'broken_{i}.png').write_bytes(b'not an image')
    return str(root)


def _first_image(batch):
    return batch[0]['img']


# Finding the files


def test_finds_every_format_at_any_depth(tmp_path):
    names = ['1.jpg', 'a/2.JPEG', 'a/b/3.PNG', 'a/b/c/4.bmp', '5.webp', '6.tif', 'x/7.TIFF', '8.ppm']
    for name in names:
        _save(tmp_path / name)
    _save(tmp_path / '9.pgm', mode='L')
    (tmp_path / 'notes.txt').write_text('no image')
    dataset = ImageFolder(data_root=str(tmp_path), pipeline=PIPELINE)
    found = {dataset.get_data_info(i)['img_path'] for i in range(len(dataset))}
    assert found == {str(tmp_path / name) for name in [*names, '9.pgm']}
    assert all(dataset[i]['img'].shape == (16, 16, 3) for i in range(9))
    assert dataset.num_broken == 0


def test_builds_under_the_scope_of_mmpretrain_with_labels_by_folder(tmp_path):
    for name in ['train/n01/a.JPEG', 'train/n01/b.JPEG', 'train/n02/c.JPEG']:
        _save(tmp_path / name)
    config = {'type': 'mmebm.ImageFolder', 'data_root': str(tmp_path), 'data_prefix': 'train'}
    assert len(DATASETS.build(config)) == 3
    labelled = DATASETS.build({**config, 'with_label': True})
    assert labelled.get_gt_labels().tolist() == [0, 0, 1]
    assert labelled.CLASSES == ('n01', 'n02')


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no_such.*data_root'):
        ImageFolder(data_root=str(tmp_path / 'no_such'))
    with pytest.raises(ValueError, match='data_root'):
        ImageFolder()


def test_an_empty_folder_and_the_extensions_are_named(tmp_path):
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(FileNotFoundError, match=rf'{tmp_path.name}.*\.jpeg, \.jpg'):
        ImageFolder(data_root=str(tmp_path))


def test_one_extension_needs_no_list(tmp_path):
    for name in ('a.jpg', 'b.JPG', 'c.png', 'd.svg'):
        (tmp_path / name).write_bytes(b'an image')
    folder = ImageFolder(data_root=str(tmp_path), extensions='.jpg')
    assert [folder.get_data_info(i)['img_path'][-5:] for i in range(len(folder))] == ['a.jpg', 'b.JPG']


# Decoding


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P'])
def test_color_png_becomes_bgr(tmp_path, mode):
    path = tmp_path / 'image.png'
    image = Image.new('RGB', (8, 6), (RED, GREEN, BLUE)).convert(mode, palette=Image.Palette.ADAPTIVE)
    image.save(path)
    results = LoadImage()({'img_path': str(path)})
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (6, 8)
    assert (results['img'] == [BLUE, GREEN, RED]).all()


def test_cmyk_jpeg_becomes_bgr(tmp_path):
    path = _save(tmp_path / 'cmyk.jpg', mode='CMYK', quality=100)
    image = LoadImage()({'img_path': str(path)})['img']
    assert image.dtype == np.uint8
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - [BLUE, GREEN, RED]).max() <= 3


@pytest.mark.parametrize('suffix', ['png', 'tif', 'pgm'])
def test_sixteen_bit_grey_becomes_eight_bit_in_three_channels(tmp_path, suffix):
    path = tmp_path / f'deep.{suffix}'
    cv2.imwrite(str(path), np.full((6, 8), 100 * 256, np.uint16))
    image = LoadImage()({'img_path': str(path)})['img']
    assert image.dtype == np.uint8
    assert image.shape == (6, 8, 3)
    assert np.abs(image.astype(int) - 100).max() <= 1


def test_to_float32(tmp_path):
    image = LoadImage(to_float32=True)({'img_path': str(_save(tmp_path / 'image.png'))})['img']
    assert image.dtype == np.float32
    assert image[0, 0].tolist() == [BLUE, GREEN, RED]


# Broken files


@pytest.mark.parametrize('options', [{'format': 'jpeg'}, {'format': 'jpeg', 'progressive': True}, {'format': 'png'}])
def test_a_truncated_image_is_refused_though_opencv_may_decode_it(tmp_path, options):
    path = tmp_path / 'image'
    _noise().save(path, **options)
    assert LoadImage()({'img_path': str(path)})['img'].shape == (64, 64, 3)
    _truncate(path)
    if options == {'format': 'jpeg'}:
        assert cv2.imread(str(path)).shape == (64, 64, 3)  # the reason for looking at the end marker
    with pytest.raises(BrokenImageError, match=rf'{path}.*truncated'):
        LoadImage()({'img_path': str(path)})


def test_a_thumbnails_end_marker_does_not_hide_truncation(tmp_path):
    thumbnail, path = tmp_path / 'thumbnail.jpg', tmp_path / 'image.jpg'
    _noise(16).save(thumbnail)
    _noise().save(path, exif=b'Exif\x00\x00' + thumbnail.read_bytes())
    assert LoadImage()({'img_path': str(path)})['img'].shape == (64, 64, 3)
    _truncate(path)
    assert b'\xff\xd9' in path.read_bytes()
    with pytest.raises(BrokenImageError, match='truncated'):
        LoadImage()({'img_path': str(path)})


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('appended', [b'\x00' * 100, b'trailing data of a camera'])
def test_data_after_the_end_marker_is_tolerated(tmp_path, suffix, appended):
    path = tmp_path / f'image.{suffix}'
    _noise().save(path)
    expected = cv2.imread(str(path))
    path.write_bytes(path.read_bytes() + appended)
    assert (LoadImage()({'img_path': str(path)})['img'] == expected).all()


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(
    ('content', 'reason'),
    [(b'', 'empty'), (b'<html>', 'decoded'), (b'\xff\xd8\xff', 'truncated'), (b'RIFF\x00\x00\x00\x00WEBP', 'decoded')],
)
def test_the_reason_is_named(tmp_path, backend, content, reason):
    path = tmp_path / 'image.jpg'
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=rf'{path}.*{reason}'):
        LoadImage(imdecode_backend=backend)({'img_path': str(path)})
    assert LoadImage(imdecode_backend=backend, ignore_empty=True)({'img_path': str(path)}) is None


def test_a_vanished_file_is_broken_and_a_wrong_option_is_not(tmp_path):
    with pytest.raises(BrokenImageError, match=r'gone\.jpg.*No such file'):
        LoadImage()({'img_path': str(tmp_path / 'gone.jpg')})
    with pytest.raises(ValueError, match='color_type'):
        LoadImage(color_type='colour')
    with pytest.raises(ValueError, match='imdecode_backend'):
        LoadImage(imdecode_backend='cv3')


def test_a_broken_file_is_replaced_and_named_once(tmp_path, warnings_logged):
    dataset = ImageFolder(data_root=_folder(tmp_path), pipeline=PIPELINE)
    for _ in range(3):
        assert [dataset[i]['img'].shape for i in range(4)] == [(16, 16, 3)] * 4
    assert dataset.num_broken == 1
    assert len(warnings_logged) == 1
    assert f'{tmp_path / "broken_0.png"}: cannot be decoded' in warnings_logged[0]
    assert '(1 so far)' in warnings_logged[0]


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_share_the_count(tmp_path, method):
    dataset = ImageFolder(data_root=_folder(tmp_path, sound=4, broken=3), pipeline=PIPELINE)
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context=method, collate_fn=_first_image)
    for _ in range(2 if method == 'fork' else 1):  # the workers of a second epoch are new ones
        assert [image.shape for image in loader] == [(16, 16, 3)] * 7
        assert dataset.num_broken == 3


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
def test_a_copy_keeps_the_count_and_shares_it_with_its_own_workers(tmp_path, duplicate):
    dataset = ImageFolder(data_root=_folder(tmp_path, sound=2, broken=2), pipeline=PIPELINE)
    dataset[0]
    counted = dataset.num_broken
    clone = duplicate(dataset)
    assert clone.num_broken == counted >= 1
    list(DataLoader(clone, num_workers=1, multiprocessing_context='fork', collate_fn=_first_image))
    assert clone.num_broken == 2
    assert dataset.num_broken == counted


def test_a_subset_counts_its_own_files(tmp_path):
    dataset = ImageFolder(data_root=_folder(tmp_path, sound=2, broken=2), pipeline=PIPELINE)
    dataset[0]
    subset = dataset.get_subset([2, 3])  # the sound ones
    assert subset[0]['img'].shape == (16, 16, 3)
    assert (len(subset), subset.num_broken) == (2, 0)
    dataset.get_subset_(1)
    assert (len(dataset), dataset.num_broken) == (1, 0)


def test_a_folder_of_broken_files_ends_with_its_name(tmp_path):
    dataset = ImageFolder(data_root=_folder(tmp_path, sound=0, broken=2), pipeline=PIPELINE, max_refetch=50)
    with pytest.raises(RuntimeError, match=rf'All 2 images in .*{tmp_path.name}.* are broken'):
        dataset[0]


def test_testing_skips_nothing(tmp_path):
    dataset = ImageFolder(data_root=_folder(tmp_path), pipeline=PIPELINE, test_mode=True)
    with pytest.raises(BrokenImageError, match=r'broken_0\.png'):
        dataset[0]


def test_errors_of_other_transforms_pass_unchanged(tmp_path):
    def fail(results):
        raise KeyError('label')

    dataset = ImageFolder(data_root=_folder(tmp_path), pipeline=[fail])
    with pytest.raises(KeyError, match='label'):
        dataset[0]
