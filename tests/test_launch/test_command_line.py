"""What the command line says is what is read: paths as typed, other options as mmengine reads them."""

import argparse
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmebm.commands import compare, evaluate, export, plan, test, train
from mmebm.experiments.downstream.evaluation import named_checkpoints
from mmebm.launch import scripts
from mmebm.launch.command_line import OptionAction, option
from mmebm.launch.options import check_data_roots

HOME = str(Path.home())
FOLDERS = ['p q', 'a,b', '001', '1e2', 'True', 'None', '[a]', '(1, 2)', 'a(b', "it's", '"p q"', 'a=b', 'ä', ' x ', 'x/']
CONFIG = """
default_scope = 'mmpretrain'
data_root = 'data/old'
train_dataloader = dict(dataset=dict(type='mmebm.ImageFolder', data_root=data_root))
"""


@pytest.mark.parametrize('folder', FOLDERS)
@pytest.mark.parametrize('key', ['data_root', 'test_data_root', 'train_dataloader.dataset.data_root', 'mae.data_root'])
def test_folders_of_data_are_those_typed(key, folder):
    assert option(f'{key}={folder}') == (key, folder)


@pytest.mark.parametrize('key', ['data_root', 'work_dir', 'model.backbone.init_cfg.checkpoint'])
def test_the_home_folder(key):
    assert option(f'{key}=~/x')[1] == f'{HOME}/x'
    assert option(f'{key}=a/~')[1] == 'a/~'


@pytest.mark.parametrize(
    'key',
    [
        'work_dir',
        'load_from',
        'finetune.load_from',
        'model.backbone.init_cfg.checkpoint',
        'model.backbone.init_cfg.1.checkpoint',
        'custom_hooks.0.checkpoint',
        'train_dataloader.dataset.ann_file',
        'train_dataloader.dataset.data_prefix',
        'train_dataloader.dataset.data_prefix.img_path',
        'visualizer.vis_backends.0.save_dir',
        'default_hooks.checkpoint.out_dir',
        'test_evaluator.outfile_prefix',
        'experiment_name',
    ],
)
def test_other_paths_and_names(key):
    for text in ('p q', 'a,b', '001', '1e2', '[a]'):
        assert option(f'{key}={text}') == (key, text)


@pytest.mark.parametrize(
    ('pair', 'value'),
    [
        ('load_from=None', None),
        ('default_hooks.checkpoint=None', None),
        ('model.backbone.use_checkpoint=True', True),
        ('model.backbone.drop_path_rate=0.1', 0.1),
        ('optim_wrapper.optimizer.lr=1e-3', 1e-3),
        ('optim_wrapper.optimizer.betas=(0.9, 0.95)', (0.9, 0.95)),
        ('a=1,2', [1, 2]),
        ('a="[(1,2),b]"', [(1, 2), 'b']),
        ('a=a b', 'a b'),
        ('a="a b"', 'a b'),
        ('a=', ''),
        ('a=b=c', 'b=c'),
    ],
)
def test_other_options_are_read_as_by_mmengine(pair, value):
    assert option(pair) == (pair.partition('=')[0], value)


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('data_root', '--cfg-options data_root: must be KEY=VALUE'),
        ('=x', '--cfg-options =x: must be KEY=VALUE'),
        ('data_root=', '--cfg-options data_root=: names no folder; "." is the present one'),
        ('a=[1,(2]', '--cfg-options a=[1,(2]: Imbalanced brackets'),
    ],
)
def test_what_is_no_option_is_named(pair, message, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'b=1', pair])
    assert message in capsys.readouterr().err


def test_options_add_up():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, default={})
    args = parser.parse_args(['--cfg-options', 'a=1', 'b=2', '--cfg-options', 'b=3'])
    assert args.cfg_options == dict(a=1, b=3)
    assert parser.parse_args([]).cfg_options == {}


@pytest.mark.parametrize('command', [compare, evaluate, plan])
def test_commands_with_options(command):
    (action,) = (action for action in command.make_parser()._actions if action.dest == 'cfg_options')
    assert isinstance(action, OptionAction)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a command and returns the config of its runner; the folder holds ``p q`` and, to be left alone, ``pq``."""
    for name in ('p q', 'pq', 'home/x'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'tiny.py').write_text(CONFIG + CONFIG.replace('train_dataloader', 'test_dataloader'))
    torch.save(dict(state_dict={'weight': torch.ones(1)}), tmp_path / 'a.pth')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('LOCAL_RANK', '0')
    seen = []

    class FakeRunner:
        train = test = lambda self: None

        @classmethod
        def from_cfg(cls, cfg):
            seen.append(cfg)
            return cls()

    def load(name, load_script=scripts.load_script):
        script = load_script(name)
        script.Runner = FakeRunner
        return script

    monkeypatch.setattr(scripts, 'load_script', load)

    def start(command, *argv):
        command.main(list(argv))
        return seen.pop()

    return start


def test_the_folder_typed_is_the_one_that_is_read(started):
    cfg = started(train, 'tiny.py', '--work-dir=~/out', '--cfg-options', 'data_root=p q', 'experiment_name=001')
    assert cfg.train_dataloader.dataset.data_root == 'p q'
    assert (cfg.work_dir, cfg.experiment_name) == (f'{Path.home()}/out', '001')
    assert started(train, 'tiny.py', '--cfg-options', 'train_dataloader.dataset.data_root=p q').work_dir
    cfg = started(test, 'tiny.py', 'a.pth', '--cfg-options', 'data_root=~/x', 'work_dir=1e2')
    assert (cfg.test_dataloader.dataset.data_root, cfg.work_dir) == (f'{Path.home()}/x', '1e2')
    with pytest.raises(FileNotFoundError, match='The folder "001"'):
        started(train, 'tiny.py', '--cfg-options', 'train_dataloader.dataset.data_root=001')


def test_home_folders_in_flags():
    args = evaluate.make_parser().parse_args(['a=~/a.pth', '--data-root=~/d', '--work-dir=~/w'])
    assert (args.data_root, args.work_dir) == (f'{HOME}/d', Path(f'{HOME}/w'))
    assert named_checkpoints(args.checkpoints) == dict(a=f'{HOME}/a.pth')
    args = compare.make_parser().parse_args(['--data=~/d', '--work-dir=~/w'])
    assert (args.data, args.work_dir) == (f'{HOME}/d', Path(f'{HOME}/w'))
    assert export.make_parser().parse_args(['a.pth', '--to=timm', '--out=~/o']).out == Path(f'{HOME}/o')


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    file = tmp_path / 'images.zip'
    file.touch()
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root=str(file)))))
    with pytest.raises(FileNotFoundError, match=r'images.zip" \(train_dataloader.dataset.data_root\) is no folder'):
        check_data_roots(cfg, ('train_dataloader',))


def test_a_folder_of_the_web_is_not_listed():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ImageFolder', data_root='http://x/y'))))
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.data_root=http://x/y: no folder can be listed'):
        check_data_roots(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    check_data_roots(cfg, ('train_dataloader',))
