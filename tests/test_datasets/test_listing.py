"""What is found below a folder, what is left out, and what is said of it."""

import logging
import os
import re

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmpretrain.registry import DATASETS

from mmebm.datasets import ImageFolder, LabelledFolder
from mmebm.datasets.listing import EXTENSIONS, class_names, list_images

PIPELINE = [dict(type='mmebm.LoadImage')]
ENCODERS = {'.jfif': '.jpg', '.mpo': '.jpg', '.j2k': '.jp2', '.apng': '.png', '.pxm': '.ppm'}  # other names of a format


@pytest.fixture
def logged():
    """The messages of mmengine's logger, from INFO on, by level."""
    records = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: records.append((record.levelname, record.getMessage()))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('INFO')
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')


@pytest.mark.parametrize('ending', EXTENSIONS)
def test_every_ending_is_decoded(tmp_path, ending):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    gray = {'.pbm', '.pgm'}
    options = [cv2.IMWRITE_PAM_TUPLETYPE, cv2.IMWRITE_PAM_FORMAT_RGB] if ending == '.pam' else []
    content = cv2.imencode(ENCODERS.get(ending, ending), image[..., 0] if ending in gray else image, options)[1]
    (tmp_path / f'a{ending.upper()}').write_bytes(content.tobytes())
    dataset = ImageFolder(str(tmp_path), pipeline=PIPELINE, test_mode=True)
    assert dataset[0]['img'].shape == (64, 64, 3) and dataset[0]['img'].dtype == np.uint8


def test_what_was_found_is_said_in_one_line(tmp_path, logged):
    write(tmp_path, 'a.JPEG', 'b/c.jpeg', 'd.JFIF', 'e.heic', 'f', 'g.x.txt', '.DS_Store', '.thumbs/h.jpg')
    assert len(ImageFolder(str(tmp_path))) == 3
    ((level, message),) = logged
    assert level == 'INFO'
    assert message == (
        f"ImageFolder: 3 images in '{tmp_path}/' (2 .jpeg, 1 .jfif); left out: 1 without an ending, 1 .heic, 1 .txt, "
        '2 hidden (.DS_Store, .thumbs)'
    )


def test_many_endings_are_not_listed_one_by_one(tmp_path):
    write(tmp_path, 'a.jpg', *(f'frame.{i:03}' for i in range(20)))
    assert str(list_images(str(tmp_path))).endswith(
        ' (1 .jpg); left out: ' + ''.join(f'1 .{i:03}, ' for i in range(12)) + '8 others'
    )


def test_files_without_an_ending_can_be_taken(tmp_path):
    write(tmp_path, 'a', 'b.jpg')
    assert list_images(str(tmp_path), ('',)).images == ['a', 'b.jpg']


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    write(tmp_path, 'a.heic', 'b.heic')
    (tmp_path / 'c.jpg').touch()
    with pytest.raises(FileNotFoundError, match=r'left out: 2 \.heic\. Skipped: 1 empty \(c\.jpg\)\.$'):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    'folder', ['.ipynb_checkpoints', '__MACOSX', '@eaDir', '.thumbs', '$RECYCLE.BIN', 'lost+found']
)
def test_hidden_folders_hold_no_data(tmp_path, folder):
    write(tmp_path, 'train/cat/1.jpg', f'train/{folder}/2.jpg', f'train/cat/{folder}/3.jpg', 'train/cat/._1.jpg')
    for dataset in (
        ImageFolder(str(tmp_path)),
        ImageFolder(str(tmp_path / 'train'), with_label=True),
        LabelledFolder(data_root=str(tmp_path), split='train'),
    ):
        assert [info['img_path'] for info in dataset] == [str(tmp_path / 'train/cat/1.jpg')]
    assert dataset.CLASSES == ('cat',) and dataset.get_gt_labels().tolist() == [0]


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    write(tmp_path, '.cache/__MACOSX/a.jpg')
    assert len(ImageFolder(str(tmp_path / '.cache/__MACOSX'))) == 1


def test_links(tmp_path, logged):
    write(tmp_path, 'data/a/1.jpg', 'data/b/2.jpg', 'else/3.jpg')
    data = tmp_path / 'data'
    for link, target in {
        'a/up': '..',
        'a/far_up': '../..',
        'a/b': '../b',
        'b/a': '../a',
        'c': '../else',
        'file.jpg': 'a/1.jpg',
        'gone.jpg': 'nowhere.jpg',
        'itself.jpg': 'itself.jpg',
        'gone': 'nowhere',
    }.items():
        (data / link).symlink_to(target)
    listing = list_images(str(data))
    assert listing.images == ['a/1.jpg', 'a/b/2.jpg', 'b/2.jpg', 'b/a/1.jpg', 'c/3.jpg', 'file.jpg']
    above, broken = (sorted(listing.skipped.pop(kind)) for kind in ('linked to a folder above', 'broken links'))
    assert above == ['a/b/a', 'a/far_up', 'a/up', 'b/a/b', 'b/a/far_up', 'b/a/up']
    assert broken == ['gone', 'gone.jpg', 'itself.jpg'] and not listing.skipped
    ImageFolder(str(data))
    assert [level for level, _ in logged] == ['INFO', 'WARNING']
    assert '3 broken links (gone, gone.jpg, itself.jpg)' in logged[1][1]
    assert '6 linked to a folder above (a/b/a, a/far_up, a/up, b/a/b, ... (6 in all))' in logged[1][1]
    assert class_names(data) == ['a', 'b', 'c']
    (data / 'self').symlink_to('.')
    assert class_names(data) == ['a', 'b', 'c']


def test_unreadable_empty_and_irregular_files(tmp_path, monkeypatch, logged):
    write(tmp_path, 'a.jpg', 'locked/b.jpg')
    (tmp_path / 'c.jpg').touch()
    os.mkfifo(tmp_path / 'd.jpg')

    def scandir(path, scandir=os.scandir):
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    assert [info['img_path'] for info in ImageFolder(str(tmp_path))] == [str(tmp_path / 'a.jpg')]
    level, message = logged[1]
    assert level == 'WARNING' and message.startswith(f"ImageFolder: skipped in '{tmp_path}/': ")
    for fault in ('1 not readable (locked/)', '1 empty (c.jpg)', '1 no regular files (d.jpg)'):
        assert fault in message


@pytest.mark.parametrize('folder', [ImageFolder, LabelledFolder])
def test_classes_without_images_and_images_without_class(tmp_path, logged, folder):
    write(tmp_path, 'cat/1.jpg', 'dog/notes.txt', 'owl/deep/2.PNG', '3.jpg')
    dataset = folder(data_root=str(tmp_path), with_label=True)
    assert dataset.CLASSES == ('cat', 'dog', 'owl') and dataset.get_gt_labels().tolist() == [0, 2]
    messages = [message for level, message in logged if level == 'WARNING']
    assert messages[0].endswith(': 1 outside the class folders (3.jpg)')
    assert re.search(rf"1 of 3 class folders in '{tmp_path}/?' without an image: dog\. They count", messages[1])


def test_another_number_of_names_than_folders(tmp_path):
    write(tmp_path, 'cat/1.jpg', 'dog/1.jpg')
    with pytest.raises(ValueError, match=r'has 2 folders \(cat, dog\), but the config names 3 classes \(a, b, c\)'):
        ImageFolder(str(tmp_path), with_label=True, metainfo=dict(classes=['a', 'b', 'c']))
    dataset = ImageFolder(str(tmp_path), with_label=True, metainfo=dict(classes=['a', 'b']))
    assert [*dataset.CLASSES] == ['a', 'b']


def test_images_are_in_the_order_of_mmpretrain(tmp_path):
    write(tmp_path, 'train/a/2.jpg', 'train/a/1/z.jpg', 'train/a-b/1.jpg', 'train/B/1.jpg', 'train/a/10.jpg')
    options = dict(data_root=str(tmp_path), split='train')
    ours = DATASETS.build(dict(type='mmebm.LabelledFolder', **options))
    theirs = DATASETS.build(dict(type='ImageNet', metainfo=dict(classes=None), **options))
    assert ours.load_data_list() == theirs.load_data_list() and ours.CLASSES == theirs.CLASSES
    flat = [
        DATASETS.build(dict(type=name, data_root=str(tmp_path), with_label=False)).load_data_list()
        for name in ('mmebm.ImageFolder', 'CustomDataset')
    ]
    assert flat[0] == flat[1]


def test_labels_by_a_list_of_imagenets_layout(tmp_path):
    write(tmp_path, 'train/1.jpg', 'train/2.jpg', 'test/3.jpg')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/train.txt').write_text('2.jpg 7\n1.jpg 0\n')
    assert LabelledFolder(data_root=str(tmp_path), split='train').get_gt_labels().tolist() == [7, 0]
    assert 'gt_label' not in LabelledFolder(data_root=str(tmp_path), split='test').get_data_info(0)
