"""A run of mmebm-train in a copied folder, resumed with other settings."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import FOLDER_CONFIG

from mmebm.commands.train import main

CONFIG = f"""
{FOLDER_CONFIG}default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
_base_.train_dataloader.dataset.pipeline[1].scale = 32
"""


def train(work_dir, *options, flags=()):
    name = f'experiment_name={work_dir}_{len([*Path(work_dir).glob("*/*.log")])}'
    main(['tiny.py', '--work-dir', work_dir, *flags, '--cfg-options', 'data_root=images', name, *options])


def rates(work_dir):
    (*_, scalars) = sorted(Path(work_dir).glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    return [row['lr'] for row in map(json.loads, scalars.read_text().splitlines()) if 'lr' in row]


def log(work_dir):
    return ''.join(path.read_text() for path in Path(work_dir).glob('*/*.log'))


@pytest.mark.slow
def test_a_copied_run_goes_on_with_other_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    Path('tiny.py').write_text(CONFIG)
    Path('images').mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(f'images/{i}.png')
    train('first', 'train_cfg.max_epochs=2')
    assert rates('first')[-1] < rates('first')[1]  # the schedule of 100 epochs would still warm up
    shutil.copytree('first', 'copy')
    shutil.rmtree('first')

    with pytest.raises(ValueError, match=r'copy/epoch_2\.pth was trained .*model\.backbone\.img_size=64 \(was 32\)'):
        train('copy', 'train_cfg.max_epochs=4', 'model.backbone.img_size=64', flags=['--resume'])
    with pytest.raises(ValueError, match=r'has 2 epochs done, more than train_cfg\.max_epochs=1'):
        train('copy', 'train_cfg.max_epochs=1', flags=['--resume'])

    options = ('train_cfg.max_epochs=4', 'optim_wrapper.optimizer.lr=1e-5', 'train_dataloader.batch_size=1')
    train('copy', *options, flags=['--resume'])
    train('whole', *options)
    assert rates('copy') == rates('whole')[8:] and len(rates('copy')) == 8
    assert 'optim_wrapper.optimizer.lr: 0.0024 -> 1e-05' in log('copy')
    assert 'An epoch has 4 iterations now, and had 2' in log('copy')
    assert [path.name for path in Path('copy').glob('*.pth')] == ['epoch_4.pth']
    assert torch.load('copy/epoch_4.pth', weights_only=False)['meta']['iter'] == 16
