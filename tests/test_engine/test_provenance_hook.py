"""What a checkpoint says of its training, on the way to an export."""

import hashlib
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from tiny import FOLDER_CONFIG

import mmebm
from mmebm.apis import Restorer
from mmebm.checkpoint import read_checkpoint
from mmebm.datasets import ConcatDataset, ImageFolder, Shapes
from mmebm.interchange import export
from mmebm.launch.preparation import prepare_training
from mmebm.provenance import describe_data


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A training of one step on four files; its folder."""
    folder = tmp_path_factory.mktemp('provenance')
    for name in ('b/1.png', 'a/2.png', '3.png', 'c/d/4.png'):
        (folder / 'photos' / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / 'photos' / name)
    (folder / 'config.py').write_text(FOLDER_CONFIG)
    cfg = Config.fromfile(folder / 'config.py')
    cfg.train_dataloader.dataset.data_root = str(folder / 'photos')
    for step in cfg.train_dataloader.dataset.pipeline:
        if step['type'] == 'RandomResizedCrop':
            step['scale'] = 32
    cfg.update(work_dir=str(folder / 'run'), param_scheduler=None)
    cfg.train_cfg.max_epochs = 1
    cfg.optim_wrapper.update(type='OptimWrapper')
    cfg.optim_wrapper.pop('dtype')
    cfg.randomness = dict(seed=3)
    cfg.update(test_dataloader=None, test_cfg=None, test_evaluator=None)
    prepare_training(cfg)
    Runner.from_cfg(cfg).train()
    return folder


def test_a_checkpoint_says_what_it_was_trained_on(run):
    provenance = read_checkpoint(run / 'run' / 'epoch_1.pth').meta['mmebm']
    digest = hashlib.sha256(b'3.png\na/2.png\nb/1.png\nc/d/4.png').hexdigest()
    about_data = dict(dataset='ImageFolder', data='photos', images=4, files_sha256=digest)
    assert {key: provenance[key] for key in about_data} == about_data
    assert (provenance['epochs'], provenance['iterations'], provenance['seed']) == (1, 2, 3)
    assert provenance['versions']['mmebm'] == mmebm.__version__
    assert provenance['versions'].keys() == {'mmebm', 'torch', 'python', 'mmengine', 'mmpretrain', 'mmcv'}
    assert provenance['commit']
    assert Restorer(run / 'run' / 'epoch_1.pth').provenance == provenance


def test_an_export_says_it_too(run, tmp_path):
    exported = export(run / 'run' / 'epoch_1.pth', 'mmpretrain', tmp_path / 'out')
    assert tmp_path / 'out' / 'provenance.json' in exported.files
    written = json.loads((tmp_path / 'out' / 'provenance.json').read_text())
    assert written == read_checkpoint(run / 'run' / 'epoch_1.pth').meta['mmebm']


def test_an_export_of_a_checkpoint_that_does_not_say_it(run, tmp_path):
    content = torch.load(run / 'run' / 'epoch_1.pth', weights_only=False)
    torch.save(dict(state_dict=content['state_dict'], meta=dict(cfg=content['meta']['cfg'])), tmp_path / 'old.pth')
    export(tmp_path / 'old.pth', 'mmpretrain', tmp_path / 'out')
    assert not (tmp_path / 'out' / 'provenance.json').exists()
    assert Restorer(tmp_path / 'old.pth').provenance == {}


def test_the_hash_is_that_of_the_names_in_the_folder(run, tmp_path):
    one = describe_data(ImageFolder(str(run / 'photos')))
    (tmp_path / 'moved').symlink_to(run / 'photos')
    moved = describe_data(ImageFolder(str(tmp_path / 'moved') + '/'))
    assert one['files_sha256'] == moved['files_sha256']
    fewer = describe_data(ImageFolder(str(run / 'photos'), indices=3))
    assert fewer['images'] == 3 and fewer['files_sha256'] != one['files_sha256']


def test_data_sets_without_files_and_of_several_parts(run):
    drawn = describe_data(Shapes(size=7))
    assert drawn == dict(dataset='Shapes', data=None, images=7, files_sha256=None)
    both = describe_data(ConcatDataset([ImageFolder(str(run / 'photos')), Shapes(size=7)]))
    assert both['images'] == 11
    assert both['files_sha256'] == describe_data(ImageFolder(str(run / 'photos')))['files_sha256']
