"""Images are counted where they are; only otherwise does a name tell how many there are."""

from pathlib import Path

import pytest

from mmebm.planning.data_length import length_of

IMAGENET = 1_281_167


@pytest.fixture
def folder(tmp_path):
    """A folder named imagenet, with three images in two classes."""
    for name in ('train/a/1.jpg', 'train/a/2.PNG', 'train/b/3.webp', 'train/.thumbs/4.jpg', 'train/notes.txt'):
        path = tmp_path / 'imagenet' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    return str(tmp_path / 'imagenet')


def test_a_folder_named_imagenet_is_counted(folder):
    counted = (3, f'counted in {folder}/train')
    assert length_of(dict(type='mmebm.ImageFolder', data_root=f'{folder}/train')) == counted
    assert length_of(dict(type='mmebm.ImageFolder', data_root=folder, data_prefix='train')) == counted
    assert length_of(dict(type='mmebm.LabelledFolder', data_root=folder, split='train')) == counted
    plain = dict(type='CustomDataset', data_root=folder, data_prefix=dict(img_path='train'), with_label=False)
    assert length_of(dict(plain, type='CustomDataset'), 'mmpretrain').images == 3  # as in a config of mmpretrain
    assert length_of(plain).images == 3  # mmpretrain knows no .webp, but takes what is hidden


def test_a_name_tells_where_no_folder_is(folder):
    absent = dict(type='mmebm.ImageFolder', data_root='/nowhere/imagenet/train')
    assert length_of(absent) == (IMAGENET, 'by its name; /nowhere/imagenet/train is not here')
    assert length_of(dict(absent, data_root='/nowhere/else')).images is None
    assert length_of(dict(type='mmebm.ImageFolder', data_root=folder, data_prefix='val')).images == IMAGENET
    assert length_of(dict(type='CIFAR10', data_root='x')).images == 50_000
    assert length_of(dict(type='CIFAR10', data_root='x', indices=100)).images == 100
    assert length_of(dict(type='mmebm.Shapes', size=7)) == (7, 'by its type')


def test_lists_parts_and_wrappers(folder):
    Path(folder, 'list.txt').write_text('train/a/1.jpg\ntrain/a/2.PNG\n')
    whole = dict(type='mmebm.ImageFolder', data_root=folder)
    listed = dict(whole, ann_file='list.txt')
    assert length_of(listed) == (2, f'counted in {folder}/list.txt')
    assert length_of(dict(whole, indices=[0, 2])).images == 2
    assert length_of(dict(whole, indices=1)).images == 1
    assert length_of(dict(type='RepeatDataset', dataset=whole, times=4)) == (12, f'4 times what is counted in {folder}')
    assert length_of(dict(type='ConcatDataset', datasets=[whole, listed])).images == 5
    unknown = dict(type='mmebm.ImageFolder', data_root='/nowhere')
    assert length_of(dict(type='ConcatDataset', datasets=[whole, unknown])).images is None


def test_a_folder_that_does_not_fit(folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no image in'):
        length_of(dict(type='mmebm.ImageFolder', data_root=str(tmp_path / 'empty')))
    with pytest.raises(ValueError, match=r'imagenet/train: The number of subfolders \(3\) does'):
        length_of(dict(type='ImageNet', data_root=folder, split='train'))
