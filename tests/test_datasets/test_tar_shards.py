import io
import json
import multiprocessing
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

import mmebm.datasets.packed.packing as packing
from mmebm.commands.pack import main as pack_command
from mmebm.datasets import BrokenImageError, ImageFolder, TarShards
from mmebm.datasets.packed.packing import pack
from mmebm.provenance import describe_data

PIPELINE = [dict(type='mmebm.LoadImage')]


def _image(number, kind='png', mode='RGB'):
    pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two classes, the same name in several folders and with several endings, and two broken files."""
    kinds = dict(jpg='jpeg', JPEG='jpeg', png='png', webp='webp', tif='tiff')
    files = {f'b/x.{ending}': _image(i, kind) for i, (ending, kind) in enumerate(kinds.items())}
    files |= {'a/x.png': _image(7), 'a/deep/x.png': _image(8), 'a-b/x.y.z.png': _image(9)}
    files |= {'b/broken.png': b'no image', 'b/cut.jpg': _image(1, 'jpeg')[:-20]}
    return _write(tmp_path_factory.mktemp('source') / 'images', files)


@pytest.fixture(scope='module')
def shards(folder):
    out = folder.parent / 'shards'
    pack(folder, out, 4)
    return out


@pytest.fixture
def copy(shards, tmp_path):
    """Shards to be damaged."""
    return shutil.copytree(shards, tmp_path / 'shards')


def _same(dataset, other):
    infos = [[one.get_data_info(i) for i in range(len(one))] for one in (dataset, other)]
    relative = [[os.path.relpath(info['img_path'], one.data_root) for info in found]
                for found, one in zip(infos, (dataset, other), strict=True)]  # fmt: skip
    assert relative[0] == relative[1]
    for i in range(len(other)):
        np.testing.assert_array_equal(dataset[i]['img'], other[i]['img'])


def test_images_order_and_classes_are_those_of_the_folder_without_its_broken_files(folder, shards):
    dataset = TarShards(str(shards), with_label=True, pipeline=PIPELINE)
    other = ImageFolder(str(folder), with_label=True, pipeline=PIPELINE)
    paths = [other.get_data_info(i)['img_path'] for i in range(len(other))]
    other.get_subset_([i for i, path in enumerate(paths) if 'broken' not in path and 'cut' not in path])
    assert len(dataset) == 8
    _same(dataset, other)
    assert dataset.metainfo['classes'] == other.metainfo['classes'] == ('a', 'a-b', 'b')
    assert dataset.get_gt_labels().tolist() == other.get_gt_labels().tolist() == [0, 0, 1, 2, 2, 2, 2, 2]
    assert dataset.get_cat_ids(3) == [2]
    assert describe_data(dataset)['files_sha256'] == describe_data(other)['files_sha256']
    assert 'gt_label' not in TarShards(str(shards)).get_data_info(0)


def test_members_are_the_files_themselves_named_for_webdataset(folder, shards):
    with tarfile.open(shards / 'shard-00000.tar') as tar:
        names = tar.getnames()
        assert tar.extractfile('000000000.png').read() == (folder / 'a/deep/x.png').read_bytes()
        assert tar.extractfile('000000000.cls').read() == b'0'
    assert names == [f'00000000{i}.{ending}' for i in range(3) for ending in ('png', 'cls')]  # 3 is broken
    with tarfile.open(shards / 'shard-00001.tar') as tar:
        assert tar.getnames()[:4] == ['000000005.jpeg', '000000005.cls', '000000006.jpg', '000000006.cls']


def test_subsets_and_repr(shards):
    dataset = TarShards(str(shards), indices=[7, 1, 1], pipeline=PIPELINE)
    assert [Path(dataset.get_data_info(i)['img_path']).name for i in range(3)][1:] == ['x.png', 'x.png']
    assert len(dataset.get_subset(2)) == 2 and len(dataset.get_subset([0])) == 1
    assert len(TarShards(str(shards), indices=-3)) == 3
    assert dataset.files_sha256 is None
    assert str(shards) in repr(dataset)


def test_a_pickle_carries_paths_alone_and_reads_the_same(shards):
    dataset = TarShards(str(shards), pipeline=PIPELINE)
    dataset[0]
    sizes = [len(pickle.dumps(one.data_list)) for one in (dataset, dataset.get_subset(2))]
    assert max(sizes) < 500
    _same(pickle.loads(pickle.dumps(dataset)), dataset)
    assert isinstance(dataset.data_list.index.members, np.memmap)


def _first(batch):
    return batch[0]['img']


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_read_the_same_images(shards, workers):
    dataset = TarShards(str(shards), pipeline=PIPELINE)
    images = list(DataLoader(dataset, num_workers=workers, collate_fn=_first))
    assert len(images) == 8
    np.testing.assert_array_equal(images[5], dataset[5]['img'])


@pytest.mark.slow
def test_workers_that_are_spawned_read_the_same_images(shards):
    dataset = TarShards(str(shards), pipeline=PIPELINE)
    context = multiprocessing.get_context('spawn')
    images = list(DataLoader(dataset, num_workers=1, collate_fn=_first, multiprocessing_context=context))
    np.testing.assert_array_equal(images[7], dataset[7]['img'])


def test_few_files_stay_open(folder, tmp_path, monkeypatch):
    monkeypatch.setattr('mmebm.datasets.packed.shards.OPEN_FILES', 2)
    pack(folder, tmp_path / 'out', 1)
    dataset = TarShards(str(tmp_path / 'out'), pipeline=PIPELINE)
    for i in range(8):
        dataset[i]
    assert len(dataset.data_list.index.shards) == 8 and len(dataset.data_list.index._files) == 2


def test_a_member_that_breaks_later_is_skipped_and_counted(copy):
    index = TarShards(str(copy)).data_list.index
    member = index.members[0]
    with (copy / 'shard-00000.tar').open('r+b') as file:
        file.seek(int(member['offset']))
        file.write(bytes(int(member['length'])))
    dataset = TarShards(str(copy), pipeline=PIPELINE)
    dataset[0]
    assert dataset.num_broken == 1
    with pytest.raises(BrokenImageError, match='a/deep/x.png'):
        TarShards(str(copy), pipeline=PIPELINE, test_mode=True)[0]


# Damaged shards and indices


def _cut(path, bytes_left):
    with path.open('r+b') as file:
        file.truncate(bytes_left)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda out: (out / 'shard-00001.tar').unlink(), 'shard-00001.tar is missing'),
        (lambda out: _cut(out / 'shard-00001.tar', 700), 'shard-00001.tar is cut off: 700 bytes instead of'),
        (lambda out: (out / 'index/names.bin').write_bytes(b'x' * 9999), 'names.bin has changed: 9999 bytes'),
        (lambda out: (out / 'index/members.npy').unlink(), 'members.npy is missing or damaged'),
        (lambda out: _cut(out / 'index/members.npy', 200), 'members.npy is missing or damaged'),
        (lambda out: np.save(out / 'index/members.npy', np.zeros(3)), r'holds \(3,\) values of float64'),
        (lambda out: (out / 'index/about.json').write_text('{"format": 1}'), 'about.json is damaged'),
        (lambda out: (out / 'index/about.json').write_text('[1'), 'about.json is damaged'),
        (lambda out: shutil.rmtree(out / 'index'), 'mmebm-pack has not finished it'),
    ],
)
def test_what_is_missing_short_or_changed_is_named(copy, damage, message):
    damage(copy)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        TarShards(str(copy))


def test_a_shard_of_the_same_size_with_other_members_is_named(copy):
    path = copy / 'shard-00000.tar'
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ValueError, match='shard-00000.tar has changed since it was indexed'):
        TarShards(str(copy), pipeline=PIPELINE)[0]


def test_options_that_do_not_fit(folder, shards, tmp_path):
    with pytest.raises(FileNotFoundError, match='mmebm-pack FOLDER --out SHARDS makes one'):
        TarShards(str(folder))
    with pytest.raises(ValueError, match='set `data_root`'):
        TarShards()
    with pytest.raises(ValueError, match=r"set its type='mmebm.LoadImage'"):
        TarShards(str(shards), pipeline=[dict(type='LoadImageFromFile')])
    with pytest.raises(ValueError, match='ann_file'):
        TarShards(str(shards), ann_file='list.txt')
    with pytest.raises(ValueError, match='has 3 classes, but the config names 2'):
        TarShards(str(shards), with_label=True, classes=['a', 'b'])
    pack(_write(tmp_path / 'one', {'x.png': _image(0)}), tmp_path / 'out', 4)
    assert len(DATASETS.build(dict(type='mmebm.TarShards', data_root=str(tmp_path / 'out')))) == 1
    with pytest.raises(ValueError, match='have no classes'):
        TarShards(str(tmp_path / 'out'), with_label=True)


# Packing


def test_the_command_names_what_it_leaves_out(folder, tmp_path, capsys):
    pack_command([str(folder), '--out', str(tmp_path / 'out')])
    printed = capsys.readouterr().out
    assert '8 images, of 3 classes, in 1 shard in' in printed
    assert 'broken.png: cannot be decoded' in printed and 'cut.jpg: is truncated' in printed
    assert "type='mmebm.TarShards', data_root=" in printed
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'broken_images.txt', 'index', 'pack.json', 'shard-00000.tar',
    ]  # fmt: skip


def test_a_killed_call_goes_on_and_ends_in_the_same_shards(folder, shards, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    write, written = packing.write_shard, []

    def dying(out, number, *args):
        if number == 1:
            (out / '.shard-00001.tar.partial').write_bytes(b'half')
            raise KeyboardInterrupt
        write(out, number, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, 'write_shard', dying)
        pack(folder, out, 4)
    with pytest.raises(FileNotFoundError, match='run it again'):
        TarShards(str(out))
    monkeypatch.setattr(packing, 'write_shard', lambda *args: (written.append(args[1]), write(*args)))
    assert pack(folder, out, 4).images == 8
    assert written == [1, 2]
    for path in shards.rglob('*'):
        assert path.is_dir() or (out / path.relative_to(shards)).read_bytes() == path.read_bytes()
    assert pack(folder, out, 4).images == 8 and written == [1, 2]


def test_other_images_or_options_do_not_continue_a_call(folder, copy):
    with pytest.raises(FileExistsError, match='images_per_shard was 4, is 5'):
        pack(folder, copy, 5)
    other = shutil.copytree(folder, copy.parent / 'other')
    _write(other, {'a/new.png': _image(0)})
    with pytest.raises(FileExistsError, match='images was 10, is 11'):
        pack(other, copy, 4)


def test_a_shard_whose_files_are_all_broken_is_left_out(tmp_path):
    files = {f'{i}.png': b'no image' if i < 2 else _image(i) for i in range(4)}
    packed = pack(_write(tmp_path / 'in', files), tmp_path / 'out', 2)
    assert (packed.images, packed.shards, packed.classes, len(packed.broken)) == (2, 1, None, 2)
    dataset = TarShards(str(tmp_path / 'out'), pipeline=PIPELINE)
    assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'out/2.png')
    assert dataset[1]['img'].shape == (9, 7, 3)


def test_names_that_are_no_utf_8(tmp_path):
    name = os.fsdecode(b'\xff\xfe.png')
    pack(_write(tmp_path / 'in', {name: _image(0), os.fsdecode(b'\xfa.jpg'): b'no'}), tmp_path / 'out', 2)
    dataset = TarShards(str(tmp_path / 'out'), pipeline=PIPELINE)
    assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'out' / name)
    assert '\\xfa.jpg: cannot be decoded' in (tmp_path / 'out/broken_images.txt').read_text()


def test_input_that_cannot_be_packed(folder, tmp_path, capsys):
    (tmp_path / 'used').mkdir()
    (tmp_path / 'used/file').touch()
    (tmp_path / 'empty').mkdir()
    _write(tmp_path / 'bad', {'x.png': b'no'})
    for arguments, message in {
        (tmp_path / 'none', tmp_path / 'out'): "none' is no folder",
        (tmp_path / 'empty', tmp_path / 'out'): 'there is no image in',
        (tmp_path / 'bad', tmp_path / 'out'): 'all 1 images in',
        (folder, folder / 'out'): 'lies in the folder that is packed',
        (folder, tmp_path / 'used'): 'is not an empty folder',
        (folder, tmp_path / 'new', '--images-per-shard', '0'): 'must be at least 1',
    }.items():
        source, out, *options = map(str, arguments)
        with pytest.raises(SystemExit):
            pack_command([source, '--out', out, *options])
        assert message in capsys.readouterr().err
    assert json.loads((tmp_path / 'out/pack.json').read_text())['images'] == 1
