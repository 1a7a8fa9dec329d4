import io
import json
import multiprocessing
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hf_files import FEATURES, IMAGE, png, save_splits, save_to_disk, table, write_parquet, write_stream
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from mmebm.datasets import BrokenImageError, HFImages, ImageFolder
from mmebm.datasets.packed.arrow_layout import split_of
from mmebm.provenance import describe_data

PIPELINE = [dict(type='mmebm.LoadImage')]


def _arrow(root):
    return save_to_disk(root / 'arrow', [table([0, 1, 2]), table([3, 4, 5, 6])])


def _arrow_file(root):
    (root / 'file').mkdir()
    with pa.ipc.new_file(root / 'file/all.arrow', table([0]).schema) as writer:
        writer.write_table(table(range(7)), max_chunksize=3)
    return root / 'file'


def _parquet(root):
    write_parquet(root / 'parquet/data/train-00000-of-00002-0a1b.parquet', table([0, 1, 2]))
    write_parquet(root / 'parquet/data/train-00001-of-00002-0a1b.parquet', table([3, 4, 5, 6]), rows=3)
    return root / 'parquet'


def _plain_bytes(root):
    rows = pa.table(dict(jpg=pa.array([png(i) for i in range(7)], pa.large_binary()), label=[0, 1, 0, 1, 0, 1, 0]))
    return write_parquet(root / 'plain/0000.parquet', rows).parent


LAYOUTS = (_arrow, _arrow_file, _parquet, _plain_bytes)


@pytest.fixture(scope='module', params=LAYOUTS)
def layout(request, tmp_path_factory):
    """The same seven images in each layout."""
    return request.param(tmp_path_factory.mktemp('hf'))


def _pixels(number):
    return np.asarray(Image.open(io.BytesIO(png(number))))[..., ::-1]


def test_images_order_and_labels(layout):
    dataset = HFImages(str(layout), with_label=True, pipeline=PIPELINE)
    assert len(dataset) == 7
    for i in (6, 0, 3, 2, 5, 1, 4):
        np.testing.assert_array_equal(dataset[i]['img'], _pixels(i))
        assert dataset[i]['gt_label'] == i % 2 and dataset[i]['sample_idx'] == i
    assert dataset.get_gt_labels().tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert dataset.get_cat_ids(3) == [1]
    assert (None if 'plain' in str(layout) else ('cat', 'ant')) == dataset.CLASSES
    assert 'gt_label' not in HFImages(str(layout)).get_data_info(0)


def test_it_draws_and_subsets_as_a_folder_of_the_same_images(layout, tmp_path):
    for i in range(7):
        (tmp_path / f'{i}.png').write_bytes(png(i))
    pipeline = [*PIPELINE, dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.GaussianNoise'))]
    sets = [kind(str(root), pipeline=pipeline) for kind, root in ((HFImages, layout), (ImageFolder, tmp_path))]
    for dataset in (*sets, *(one.get_subset([5, 1]) for one in sets)):
        dataset.seen = []
        for i in range(len(dataset)):
            np.random.seed(i)
            dataset.seen.append(dataset[i]['img'][0])
    np.testing.assert_array_equal(sets[0].seen, sets[1].seen)
    assert len(HFImages(str(layout), indices=-3)) == 3


def test_names_are_file_row_and_the_name_of_the_image(tmp_path):
    dataset = HFImages(str(_arrow(tmp_path)))
    assert dataset.get_data_info(4)['img_path'] == f'{tmp_path}/arrow/data-00000-of-00002.arrow/1/1.png'
    dataset = HFImages(str(_parquet(tmp_path)))
    assert dataset.get_data_info(6)['img_path'].endswith('parquet/data/train-00001-of-00002-0a1b.parquet/3/3.png')
    rows = pa.array([dict(bytes=png(0), path='/etc/../a/b.png'), dict(bytes=png(1), path=None)], IMAGE)
    write_parquet(tmp_path / 'odd/x.parquet', pa.table(dict(image=rows)))
    odd = HFImages(str(tmp_path / 'odd'))
    assert [odd.get_data_info(i)['img_path'] for i in (0, 1)] == [
        f'{tmp_path}/odd/x.parquet/{n}' for n in ('0/b.png', 1)
    ]


def test_the_provenance_tells_files_and_subsets_apart(layout, tmp_path):
    about = describe_data(HFImages(str(layout)))
    assert about['dataset'] == 'HFImages' and about['images'] == 7 and len(about['files_sha256']) == 64
    hashes = {about['files_sha256'], describe_data(HFImages(str(_arrow(tmp_path)), split=''))['files_sha256']}
    hashes |= {HFImages(str(layout), indices=indices).files_sha256 for indices in ([0, 1], [0, 2], 2)}
    assert len(hashes) == (3 if 'arrow' in Path(layout).name else 4)  # 2 is [0, 1]


def test_parts_of_a_whole_are_not_read_for_the_provenance(tmp_path, monkeypatch):
    parts = [HFImages(str(make(tmp_path))) for make in (_arrow, _parquet)]
    monkeypatch.setattr(HFImages, 'get_data_info', lambda *args: pytest.fail('reads a name'))
    both, other = (describe_data(ConcatDataset(some))['files_sha256'] for some in (parts, parts[:1] * 2))
    assert both != other
    assert describe_data(RepeatDataset(parts[0], 3))['files_sha256'] == parts[0].files_sha256


def test_labels_that_were_not_read(layout):
    with pytest.raises(ValueError, match='were not read; set with_label=True'):
        HFImages(str(layout)).get_gt_labels()
    with pytest.raises(ValueError, match='were not read; set with_label=True'):
        HFImages(str(layout)).get_cat_ids(0)


def test_files_are_listed_when_they_are_needed(layout):
    lazy, listed = (HFImages(str(layout), with_label=True, lazy_init=is_lazy) for is_lazy in (True, False))
    assert lazy.get_cat_ids(1) == listed.get_cat_ids(1)
    lazy = HFImages(str(layout), lazy_init=True)
    assert lazy.files_sha256 == listed.files_sha256


def test_a_pickle_carries_no_content_and_reads_the_same(layout):
    dataset = HFImages(str(layout), with_label=True, pipeline=PIPELINE)
    dataset[0]
    assert len(pickle.dumps(dataset.data_list)) < 500
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[6]['img'], dataset[6]['img'])


def _first(batch):
    return batch[0]['img']


def test_workers_read_the_same_images(layout):
    dataset = HFImages(str(layout), pipeline=PIPELINE)
    dataset[0]  # workers are forked from a process with open files
    for i, image in enumerate(DataLoader(dataset, num_workers=2, collate_fn=_first)):
        np.testing.assert_array_equal(image, _pixels(i))


@pytest.mark.slow
def test_workers_that_are_spawned_read_the_same_images(tmp_path):
    dataset = HFImages(str(_parquet(tmp_path)), pipeline=PIPELINE)
    context = multiprocessing.get_context('spawn')
    images = list(DataLoader(dataset, num_workers=1, collate_fn=_first, multiprocessing_context=context))
    np.testing.assert_array_equal(images[6], _pixels(6))


def test_a_forked_process_opens_files_of_its_own(tmp_path, monkeypatch):
    index = HFImages(str(_arrow(tmp_path))).data_list.index
    first = index._open(0)
    assert index._open(0) is first
    monkeypatch.setattr('os.getpid', lambda: -1)
    assert index._open(0) is not first


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr('mmebm.datasets.packed.arrow_index.OPEN_FILES', 2)
    save_to_disk(tmp_path, [table([i]) for i in range(5)])
    dataset = HFImages(str(tmp_path), pipeline=PIPELINE)
    for i in range(5):
        np.testing.assert_array_equal(dataset[i]['img'], _pixels(i))
    assert len(dataset.data_list.index._open_files) == 2


@pytest.mark.parametrize('kind', ['arrow', 'parquet'])
def test_memory_holds_a_row_group_and_not_the_data_set(tmp_path, kind):
    """40 images of 1 MB each: nothing of Arrow's, and of Parquet's the group that was read last."""
    content = table([bytes(1_000_000) if i else png(0) for i in range(40)], labels=[0] * 40)
    if kind == 'arrow':
        save_to_disk(tmp_path, [content])
    else:
        write_parquet(tmp_path / 'x.parquet', content)
    del content
    before = pa.total_allocated_bytes()
    index = HFImages(str(tmp_path)).data_list.index
    sizes = [len(index.content(i)) for i in range(40)]
    assert sum(sizes) > 39_000_000
    assert pa.total_allocated_bytes() - before < (100_000 if kind == 'arrow' else 3_000_000)


# Broken images


def test_broken_images_are_skipped_counted_and_named_once(tmp_path, caplog):
    rows = [dict(bytes=png(0), path='0.png'), dict(bytes=png(1)[:-20], path='cut.png'), dict(bytes=None, path='x.png'),
            None, dict(bytes=b'', path=None), dict(bytes=png(5), path='5.png')]  # fmt: skip
    write_parquet(tmp_path / 'train.parquet', pa.table(dict(image=pa.array(rows, IMAGE))))
    dataset = HFImages(str(tmp_path), pipeline=PIPELINE)
    for _ in range(3):
        for i in range(6):
            assert dataset[i]['img'].shape == (9, 7, 3)
    assert dataset.num_broken == 4 and dataset.broken.tolist() == [False, True, True, True, True, False]
    strict = HFImages(str(tmp_path), pipeline=PIPELINE, test_mode=True)
    for i, message in {
        1: '1/cut.png: is truncated',
        2: '2/x.png: has no bytes',
        3: '/3: has no',
        4: '/4: is empty',
    }.items():
        with pytest.raises(BrokenImageError, match=f'train.parquet/?{message}'):
            strict[i]


def test_all_broken(tmp_path):
    write_parquet(tmp_path / 'x.parquet', table([b'no image', b'nor this'], labels=[0, 1]))
    with pytest.raises(RuntimeError, match=r'All 2 images in .* are broken.*x.parquet/'):
        HFImages(str(tmp_path), pipeline=PIPELINE)[0]


# Splits


@pytest.mark.parametrize(
    ('path', 'split'),
    [
        ('data/train-00000-of-00005-0a1b.parquet', 'train'), ('default/validation/0000.parquet', 'validation'),
        ('imagenet-1k-train-00002-of-00257.arrow', 'train'), ('test.parquet', 'test'), ('x/0000.parquet', ''),
        ('train/data-00000-of-00002.arrow', 'train'), ('data-00000-of-00002.arrow', ''), ('attest.parquet', ''),
        ('data/train_small-00000-of-00001.parquet', 'train_small'), ('Val/x.parquet', 'val'),
    ],
)  # fmt: skip
def test_the_split_of_a_file(path, split):
    assert split_of(path) == split


def test_splits_are_told_apart(tmp_path):
    folder = save_splits(tmp_path / 'dict', train=table([0, 1]), test=table([2]))
    for split, images in dict(train=2, test=1).items():
        write_parquet(tmp_path / f'hub/data/{split}-00000-of-00001.parquet', table(range(images)))
        for root in (folder, tmp_path / 'hub'):
            assert len(HFImages(str(root), split=split)) == images
            assert len(HFImages(str(root / 'train') if root == folder else str(root), split='train')) == 2
    for root in (folder, tmp_path / 'hub'):
        with pytest.raises(ValueError, match='has several splits; set `split` to one of (train, test|test, train)'):
            HFImages(str(root))
        with pytest.raises(ValueError, match=r"has no split='val'; choose from"):
            HFImages(str(root), split='val')
    with pytest.raises(ValueError, match="holds the split 'train' alone, not 'test'"):
        HFImages(str(folder / 'train'), split='test')
    with pytest.raises(ValueError, match='its files do not tell any; leave it out'):
        HFImages(str(_plain_bytes(tmp_path)), split='train')


def test_a_download_that_is_not_complete(tmp_path):
    for part in (0, 2):
        write_parquet(tmp_path / f'data/train-0000{part}-of-00003.parquet', table([part]))
    with pytest.raises(ValueError, match=r'lacks 1 of 3 files train-\*-of-00003, the first of number 1; download'):
        HFImages(str(tmp_path))
    write_parquet(tmp_path / 'data/train-00001-of-00003.parquet', table([1]))
    assert len(HFImages(str(tmp_path))) == 3


def test_two_configurations_of_one_data_set(tmp_path):
    for size in ('160px', '320px'):
        write_parquet(tmp_path / size / 'train-00000-of-00001.parquet', table([0]))
    with pytest.raises(
        ValueError, match='holds train-00000-of-00001 several times, .*: 160px, 320px; name the folder of one'
    ):
        HFImages(str(tmp_path), split='train')
    assert len(HFImages(str(tmp_path / '160px'))) == 1


def test_two_configurations_whose_files_are_only_numbered(tmp_path):
    for name in ('full', 'small'):
        write_parquet(tmp_path / name / 'train/0000.parquet', table([0]))
    with pytest.raises(
        ValueError, match=r'holds 0000.parquet several times, .*: full/train, small/train; name the folder of one'
    ):
        HFImages(str(tmp_path), split='train')
    assert len(HFImages(str(tmp_path / 'full'))) == 1


def test_classes_of_the_config_in_another_order(tmp_path):
    root = str(write_parquet(tmp_path / 'train.parquet', table([0, 1])).parent)
    with pytest.raises(ValueError, match='name the same classes in another order, .*: cat, ant, and ant, cat'):
        HFImages(root, with_label=True, metainfo=dict(classes=['ant', 'cat']))
    assert [*HFImages(root, with_label=True, metainfo=dict(classes=['a cat', 'an ant'])).CLASSES] == ['a cat', 'an ant']


def test_what_the_library_keeps_beside_the_data_is_left_out(tmp_path):
    write_stream(tmp_path / 'name-train.arrow', table([0, 1]))
    write_stream(tmp_path / 'cache-0a1b.arrow', table([0]))
    assert len(HFImages(str(tmp_path))) == 2


# Bad input


def test_a_folder_that_is_none_or_holds_other_files(tmp_path):
    with pytest.raises(ValueError, match='set `data_root` to the folder of Arrow or Parquet files'):
        HFImages()
    with pytest.raises(FileNotFoundError, match="absent' is no folder; download or save"):
        HFImages(str(tmp_path / 'absent'))
    (tmp_path / 'a.png').write_bytes(png(0))
    with pytest.raises(FileNotFoundError, match=r'no .arrow and no .parquet file .*: 1 .png.*mmebm.ImageFolder'):
        HFImages(str(tmp_path))
    write_parquet(tmp_path / 'x.parquet', table([0]))
    with pytest.raises(FileNotFoundError, match='is a file; name its folder'):
        HFImages(str(tmp_path / 'x.parquet'))
    write_stream(tmp_path / 'x.arrow', table([0]))
    with pytest.raises(ValueError, match=r'holds Arrow and Parquet files \(x.arrow, x.parquet\)'):
        HFImages(str(tmp_path))


def test_columns_that_are_missing_several_or_of_another_kind(tmp_path):
    def written(**columns):
        return str(write_parquet(tmp_path / 'x.parquet', pa.table(columns)).parent)

    with pytest.raises(ValueError, match=r'no column of images.*it has label \(int64\), text \(string\)'):
        HFImages(written(label=[0], text=['a']))
    image = pa.array([dict(bytes=png(0), path=None)], IMAGE)
    two = written(image=image, mask=image, label=[0], raw=[b''])
    with pytest.raises(ValueError, match='several columns of images; set `image_column` to one of image, mask'):
        HFImages(two)
    assert len(HFImages(two, image_column='mask')) == len(HFImages(two, image_column='raw')) == 1
    with pytest.raises(ValueError, match=r"no column of images image_column='label', but image \(struct"):
        HFImages(two, image_column='label')
    with pytest.raises(ValueError, match="no column 'fine'; set `label_column`: it has image"):
        HFImages(two, image_column='mask', with_label=True, label_column='fine')
    with pytest.raises(ValueError, match="column 'raw' has binary"):
        HFImages(two, image_column='mask', with_label=True, label_column='raw')
    with pytest.raises(ValueError, match=r"label_column='label' has no effect without with_label=True"):
        HFImages(two, label_column='label')
    with pytest.raises(ValueError, match="ann_file='list.txt' has no effect"):
        HFImages(two, ann_file='list.txt')
    with pytest.raises(ValueError, match=r"set its type='mmebm.LoadImage'"):
        HFImages(two, pipeline=[dict(type='LoadImageFromFile')])


@pytest.mark.parametrize(
    ('columns', 'message'),
    [
        (dict(labels=[0, -1]), r"column 'label' has -1 in row 1, which is no class \(0 to 1\)"),
        (dict(labels=[2, 0]), "column 'label' has 2 in row 0"),
        (dict(label=pa.array([None, 1])), '1 of 2 images have no label'),
        (dict(features=FEATURES | dict(fine=FEATURES['label']), fine=pa.array([0, 1])),
         'set `label_column` to one of label, fine'),
    ],
)  # fmt: skip
def test_labels_that_are_none(tmp_path, columns, message):
    write_parquet(tmp_path / 'x.parquet', table([0, 1], **columns))
    with pytest.raises(ValueError, match=message):
        HFImages(str(tmp_path), with_label=True)


def test_classes_that_differ(tmp_path):
    write_parquet(tmp_path / 'a.parquet', table([0]))
    with pytest.raises(ValueError, match='has 2 classes, but the config names 1'):
        HFImages(str(tmp_path), with_label=True, classes=['a'])
    other = FEATURES | dict(label=dict(names=['ant', 'cat'], _type='ClassLabel'))
    write_parquet(tmp_path / 'b.parquet', table([0], features=other))
    with pytest.raises(ValueError, match=r'a.parquet and b.parquet .* name other classes \(cat, ant; ant, cat\)'):
        HFImages(str(tmp_path), with_label=True)
    write_parquet(tmp_path / 'b.parquet', table([0]).rename_columns(['picture', 'label']))
    with pytest.raises(ValueError, match='b.parquet has no column of images'):
        HFImages(str(tmp_path))


def test_classes_are_also_those_that_dataset_info_names(tmp_path):
    save_to_disk(tmp_path, [table([0, 1], features=None)])
    (tmp_path / 'dataset_info.json').write_text(json.dumps(dict(features=FEATURES)))
    assert HFImages(str(tmp_path), with_label=True).CLASSES == ('cat', 'ant')


def test_paths_in_place_of_images(tmp_path):
    paths = pa.array([dict(bytes=None, path='/data/a.png')], IMAGE)
    write_stream(tmp_path / 'x.arrow', pa.table(dict(image=paths)))
    with pytest.raises(ValueError, match=r"holds no images, only paths, the first '/data/a.png'.*save_to_disk"):
        HFImages(str(tmp_path))
    write_stream(tmp_path / 'x.arrow', table([]))
    with pytest.raises(ValueError, match='no image in .*: x.arrow have no rows'):
        HFImages(str(tmp_path))


def _cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _state(text):
    return lambda root: (root / 'state.json').write_text(text)


ARROW = 'data-00001-of-00002.arrow'


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda root: _cut(root / ARROW, 0.5), f'{ARROW}: is cut off'),
        (lambda root: (root / ARROW).write_bytes(b'no arrow' * 9), f'{ARROW}: is cut off'),
        (lambda root: (root / ARROW).write_bytes(b'ARROW1' * 9), f'{ARROW}: .*copy or download it again'),
        (lambda root: (root / ARROW).write_bytes(b'x' * 64 + b'\xff' * 4 + bytes(4)), f'{ARROW}: .*copy or download'),
        (lambda root: (root / ARROW).write_bytes(b''), f'{ARROW}: .*copy or download'),
        (lambda root: (root / ARROW).write_text('version https://git-lfs.github.com/spec/v1'), 'git lfs pull'),
        (lambda root: (root / ARROW).unlink(), f'{ARROW} is missing, which state.json'),
        (lambda root: write_stream(root / ARROW, table([0, 1]), compression='lz4'), f'{ARROW}: is compressed'),
        (_state('{'), 'state.json is damaged'), (_state('[]'), 'state.json is damaged'),
        (_state('{}'), 'names no files'), (_state('{"_data_files": [{}]}'), 'state.json is damaged: it names no files'),
        (_state('{"_data_files": ["x", 1]}'), 'names no files'), (_state('{"_data_files": []}'), 'names no files'),
        (_state('{"_data_files": [{"filename": "../x.arrow"}]}'), 'names files in other folders'),
        (_state(json.dumps(dict(_data_files=[dict(filename=ARROW)], _indices_data_files=[1]))), 'flatten_indices'),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(tmp_path, damage, message):
    damage(_arrow(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        HFImages(str(tmp_path / 'arrow'))


def test_splits_that_are_damaged_are_named(tmp_path):
    folder = save_splits(tmp_path, train=table([0]), test=table([1]))
    (folder / 'test/state.json').unlink()
    with pytest.raises(FileNotFoundError, match='test/state.json is missing'):
        HFImages(str(folder), split='test')
    for text in ('{"splits": 3}', '{}', '{"splits": []}', '['):
        (folder / 'dataset_dict.json').write_text(text)
        with pytest.raises(ValueError, match='dataset_dict.json is damaged|has no split'):
            HFImages(str(folder))


def test_damaged_parquet_is_named(tmp_path):
    path = write_parquet(tmp_path / 'x.parquet', table([0, 1, 2, 3]))
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ValueError, match='x.parquet: .*copy or download it again'):
        HFImages(str(tmp_path))
    path.write_bytes(content)
    dataset = HFImages(str(tmp_path), pipeline=PIPELINE)
    page = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    path.write_bytes(content[:page] + b'\xff' * 40 + content[page + 40 :])
    assert dataset[0]['img'].shape == (9, 7, 3)
    with pytest.raises(ValueError, match=r'x.parquet: row 2 cannot be read \(.*copy or download it again'):
        dataset[2]
    (tmp_path / 'y.parquet').touch()
    with pytest.raises(ValueError, match=r'1 empty \(y.parquet\); copy or download'):
        HFImages(str(tmp_path))


def test_without_pyarrow(tmp_path, monkeypatch):
    _plain_bytes(tmp_path)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r'pip install "mmebm\[tables\]", or pip install pyarrow'):
        HFImages(str(tmp_path / 'plain'))


def test_it_builds_from_a_config(layout):
    assert len(DATASETS.build(dict(type='mmebm.HFImages', data_root=str(layout)))) == 7
