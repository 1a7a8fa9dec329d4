"""Real runs of tools/train.py in processes of their own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EPOCHS = 4
CONFIG = f"""
_base_ = '{ROOT}/configs/ebm_vit-t_shapes.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=32),
)
train_dataloader = dict(batch_size=16, dataset=dict(size=320))
for held_out_set in _base_.val_dataloader.dataset.datasets:
    held_out_set.size = 4
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0)
train_cfg = dict(max_epochs={EPOCHS})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
custom_hooks = _base_.custom_hooks[:3]
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'tiny_shapes.py'
    path.write_text(CONFIG)
    return path


def start(config, work_dir, *flags):
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config), '--work-dir', str(work_dir), *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    finish(start(config, work_dir))
    return work_dir


def psnr_of_masked_images():
    """Mean over the held-out images, by its definition."""
    cfg = Config.fromfile(ROOT / 'configs' / 'ebm_vit-t_shapes.py')
    dataset = cfg.val_dataloader.dataset.datasets[0]
    dataset.size = 4
    values = []
    for sample in DATASETS.build(dataset):
        corrupted, clean = (view.double() for view in sample['inputs'])
        values.append(10 * math.log10(255**2 / (corrupted - clean).square().mean().item()))
    return sum(values) / len(values)


def test_the_loss_falls(finished):
    (scalars,) = finished.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == EPOCHS * 20
    assert sum(losses[-20:]) < 0.95 * sum(losses[:20])
    # Four held-out images with 60% of their patches grey, the same in every epoch.
    (psnr,) = {row['restoration/mask/psnr_corrupted_db'] for row in rows if 'energy/mask/auroc' in row}
    assert psnr == pytest.approx(psnr_of_masked_images(), abs=1e-3)
    assert sum('energy/mask/auroc' in row for row in rows) == EPOCHS
    logged = {key for row in rows for key in row}
    assert logged >= {'loss', 'error_ratio', 'objective_ratio', 'step_size', 'grad_norm', 'energy_corrupted',
                      'energy_clean', 'energy_restored'}  # fmt: skip


def test_killed_in_mid_epoch_and_resumed_it_ends_in_the_same_weights(config, finished, tmp_path):
    process = start(config, tmp_path)
    deadline = time.time() + 240
    while not (tmp_path / 'epoch_2.pth').exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    for line in process.stdout:
        if 'Epoch(train) [3]' in line and '[10/20]' in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / 'epoch_3.pth').exists()

    output = finish(start(config, tmp_path, '--resume'))
    assert 'resumed epoch: 2' in output
    resumed, expected = (weights(folder / f'epoch_{EPOCHS}.pth') for folder in (tmp_path, finished))
    assert resumed.keys() == expected.keys()
    differing = [name for name in expected if not torch.equal(resumed[name], expected[name])]
    assert differing == []


def test_two_processes_by_dist_train(config, tmp_path, free_port):
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(config), '2', '--work-dir', str(tmp_path),
               '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=8']  # fmt: skip
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'PATH': path, 'PORT': str(free_port)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[20/20]' in done.stdout + done.stderr  # 320 images, 2 x 8 a step
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='names of threads are read from /proc')
def test_no_communication_thread_is_left_at_exit(config, tmp_path, free_port):
    """Such a thread aborts the process now and then, after all is saved, which fails the job."""
    script = (
        'import sys\n'
        'from pathlib import Path\n'
        'from mmebm.commands.train import main\n'
        'main(sys.argv[1:])\n'
        'print("threads at exit:", *[task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")])\n'
    )
    command = [sys.executable, '-c', script, str(config), '--work-dir', str(tmp_path), '--launcher', 'pytorch',
               '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=160']  # fmt: skip
    world = {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1'}
    world['MASTER_PORT'] = str(free_port)
    environment = os.environ | world | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'threads at exit:' in done.stdout
    assert 'gloo' not in done.stdout.rpartition('threads at exit:')[2]
