"""A HuggingFace data set in place of a config's folder: what is checked before a start, and a training."""

import pytest
import torch
from hf_files import FEATURES, png, save_splits, table, write_parquet
from mmengine.config import Config
from tiny import FOLDER_CONFIG

from mmebm.commands.train import main
from mmebm.launch.checks.classes import check_classes
from mmebm.planning.data_length import length_of

READ = 'train_dataloader.dataset'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A Parquet data set of six images of which one is broken, as on the hub, and a config of a tiny training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    write_parquet(tmp_path / 'hub/data/train-00000-of-00002.parquet', table([0, 1, 2]))
    write_parquet(tmp_path / 'hub/data/train-00001-of-00002.parquet', table([3, png(4)[:-20], 5], labels=[1, 0, 1]))
    write_parquet(tmp_path / 'hub/data/test-00000-of-00001.parquet', table([0]))
    config = f'{FOLDER_CONFIG}train_cfg = dict(max_epochs=2)\nparam_scheduler = None\n'
    (tmp_path / 'tiny.py').write_text(config + f'experiment_name = {str(tmp_path)!r}.replace("/", "_")\n')
    return tmp_path


def train(*options):
    main(['tiny.py', '--work-dir', 'out', '--cfg-options', f'{READ}.pipeline.1.scale=32', *options])


@pytest.mark.slow
def test_a_training_by_options_alone(root):
    train(f'{READ}.type=mmebm.HFImages', f'{READ}.data_root=hub', f'{READ}.split=train')
    about = torch.load(root / 'out/epoch_2.pth', weights_only=False)['meta']['mmebm']
    assert (about['dataset'], about['data'], about['images']) == ('HFImages', 'hub', 6)
    broken = (root / 'out/broken_images.txt').read_text()
    assert broken == 'broken\thub/data/train-00001-of-00002.parquet/1/1.png\n'
    (log,) = root.glob('out/*/*.log')
    assert log.read_text().count('Skipped a broken image') == 1
    assert "6 images in column 'image' of 2 files in 'hub'" in log.read_text()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['data_root=absent'], 'absent.* is no folder|absent'),
        (['data_root=hub'], 'several splits; set `split` to one of (train, test|test, train)'),
        (['data_root=hub', 'split=val'], "no split='val'; choose from"),
        (['data_root=hub', 'split=train', 'image_column=label'], "no column of images image_column='label'"),
    ],
)
def test_wrong_options_end_before_a_start(root, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(f'{READ}.type=mmebm.HFImages', *(f'{READ}.{option}' for option in options))
    assert not list(root.glob('out/*.pth'))


def test_a_folder_of_such_files_names_the_data_set(root):
    with pytest.raises(FileNotFoundError, match=r'left out: 3 .parquet. .* are read by type=mmebm.HFImages'):
        train('data_root=hub')


def test_plan_counts_it(root):
    dataset = dict(type='mmebm.HFImages', data_root=str(root / 'hub'), split='train')
    assert length_of(dataset) == (6, f'counted in {root}/hub')
    assert length_of(dict(dataset, indices=[0, 2])).images == 2
    assert length_of(dict(dataset, data_root='/nowhere')) == (None, 'by its name; /nowhere is not here')


def classes(train, val, number=2):
    head = dict(type='LinearClsHead', num_classes=number, in_channels=16)
    loaders = dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val))
    check_classes(Config(dict(model=dict(type='ImageClassifier', head=head), **loaders)), ['val_dataloader'])


def test_classes_that_differ_end_before_a_start(tmp_path):
    other = FEATURES | dict(label=dict(names=['ant', 'cat'], _type='ClassLabel'))
    save_splits(tmp_path, train=table([0, 1]), val=table([1], features=other), same=table([1]))
    train, val, same = (
        dict(type='mmebm.HFImages', data_root=str(tmp_path), split=split, with_label=True)
        for split in ('train', 'val', 'same')
    )
    classes(train, same)
    classes(train, dict(val, with_label=False))
    with pytest.raises(ValueError, match='must name the same classes in the same order.* not cat, ant and ant, cat'):
        classes(train, val)
    with pytest.raises(ValueError, match='2 classes|num_classes'):
        classes(train, same, number=3)
    with pytest.raises(ValueError, match="no split='dev'"):
        classes(train, dict(val, split='dev'))
