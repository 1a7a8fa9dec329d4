"""mmebm-evaluate: which configs fit a checkpoint, what runs, and what the table says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmebm.checkpoint import Checkpoint
from mmebm.commands import evaluate, make_shapes
from mmebm.experiments.downstream import evaluation
from mmebm.experiments.downstream import trainings as downstream
from mmebm.experiments.downstream.tasks import find_backbone
from mmebm.experiments.results import markdown_table

CONFIGS = Path(__file__).parents[2] / 'configs'


def save_checkpoint(config: str, path: Path) -> Path:
    """As pretraining with a shipped config leaves it, from its initial weights."""
    cfg = Config.fromfile(CONFIGS / f'{config}.py')
    backbone = MODELS.build(cfg.model.backbone)
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=state), path)
    return path


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A folder with a checkpoint and twenty labelled images."""
    folder = tmp_path_factory.mktemp('evaluate')
    save_checkpoint('ebm-patches_vit-t_shapes-64px', folder / 'pretrained.pth')
    sizes = ['--train', '20', '--val', '10', '--image-size', '64']
    make_shapes.main([str(folder / 'data' / 'shapes_imagenet'), '--layout', 'imagenet', *sizes])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    'config, expected',
    [
        ('ebm_vit-b_in1k', ('vit-b', 'in1k')),
        ('ebm-patches_vit-l_in1k', ('vit-l', 'in1k')),
        ('ebm_swin-b_in1k', ('swin-b', 'in1k')),
        ('ebm_resnet50_in1k', ('resnet50', 'in1k')),
        ('ebm-patches_vit-t_shapes-64px', ('vit-t', 'shapes')),
    ],
)
def test_finds_the_configs_of_a_backbone(config, expected):
    meta = dict(cfg=Config.fromfile(CONFIGS / f'{config}.py').pretty_text)
    assert find_backbone(Checkpoint(Path('a.pth'), {}, meta)) == expected


@pytest.mark.slow
def test_finds_the_configs_of_a_backbone_however_it_is_written():
    for backbone, expected in (
        ("type='VisionTransformer', arch='b'", 'vit-b'),
        ("type='mmpretrain.VisionTransformer', arch='deit-base', patch_size=16, img_size=192", 'vit-b'),
        ("type='ResNet', depth=50", 'resnet50'),
    ):
        meta = dict(cfg=f"model = dict(type='EBMAlgorithm', backbone=dict({backbone}))")
        assert find_backbone(Checkpoint(Path('a.pth'), {}, meta))[0] == expected
    heads = 'dict(embed_dims=768, num_layers=12, num_heads=6, feedforward_channels=3072)'
    meta = dict(cfg=f"model = dict(type='EBMAlgorithm', backbone=dict(type='VisionTransformer', arch={heads}))")
    assert find_backbone(Checkpoint(Path('a.pth'), {}, meta)) is None  # the same weights, another network


def test_a_checkpoint_cannot_name_what_to_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = "dict(type='subprocess.run', args='touch ran', shell=True)"
    meta = dict(cfg=f"model = dict(backbone=dict(type='ConvNeXt', arch='tiny', act_cfg={call}))")
    with pytest.raises(ValueError, match='names types within its backbone by their module, which is refused'):
        find_backbone(Checkpoint(Path('a.pth'), {}, meta))
    assert not Path('ran').exists()


def test_table_has_mean_and_standard_deviation_over_seeds():
    rows = [
        dict(task='seg', metric='mIoU', init=init, seed=seed, value=value)
        for init, values in (('ebm', (40.0, 42.0, 44.0)), ('random', (30.0, 30.0, 33.0)))
        for seed, value in enumerate(values)
    ]
    rows.append(dict(task='knn', metric='top-1', init='ebm', seed=0, value=50.0))
    assert markdown_table(*evaluation.table(rows)) == (
        '| initialisation | seg: mIoU | knn: top-1 |\n'
        '| --- | --: | --: |\n'
        '| ebm | 42.0 ± 2.0 | 50.0 |\n'
        '| random | 31.0 ± 1.7 | - |'
    )


def test_checkpoints_are_named_by_the_user_or_by_their_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('run/epoch_9.pth', 'lr=0.1/epoch_9.pth'):
        Path(path).parent.mkdir()
        Path(path).touch()
    texts = ['run/epoch_9.pth', 'lr=0.1/epoch_9.pth', 'ours=lr=0.1/epoch_9.pth', 'lost=run/none.pth']
    assert evaluation.named_checkpoints(texts) == {
        'run': 'run/epoch_9.pth',
        'lr=0.1': 'lr=0.1/epoch_9.pth',
        'ours': 'lr=0.1/epoch_9.pth',
        'lost': 'run/none.pth',
    }


@pytest.mark.slow
def test_runs_what_is_missing_and_nothing_twice(shapes, capsys):
    work_dir = shapes / 'runs'
    argv = [f'ours={shapes / "pretrained.pth"}', '--data-root', str(shapes / 'data'), '--work-dir', str(work_dir)]
    options = ['finetune.train_cfg.max_epochs=1', 'finetune.train_cfg.val_interval=1', 'finetune.val_evaluator.topk=1']
    evaluate.main([*argv, '--tasks', 'knn', 'finetune', '--jobs', '2', '--cfg-options', *options])
    rows = json.loads((work_dir / 'results.json').read_text())
    assert [(row['task'], row['metric'], row['init'], row['seed']) for row in rows] == [
        ('knn', 'top-1', 'ours', 0),
        ('knn', 'top-1', 'random', 0),
        ('finetune', 'top-1', 'ours', 0),
        ('finetune', 'top-1', 'random', 0),
    ]
    assert all(row['value'] in range(0, 101, 10) for row in rows)  # of ten images
    trained = Config.fromfile(work_dir / 'finetune' / 'random' / 'seed_0.py')
    assert trained.model.backbone.init_cfg is None and trained.train_cfg.max_epochs == 1

    before = {path: path.stat().st_mtime_ns for path in work_dir.rglob('result.json')}
    interrupted = work_dir / 'finetune' / 'random' / 'seed_0'
    (interrupted / 'result.json').unlink()
    [log] = interrupted.glob('*/vis_data/scalars.json')  # which ends before the validation
    log.write_text(''.join(line for line in log.read_text().splitlines(True) if 'accuracy/top1' not in line))
    evaluate.main([*argv, '--tasks', 'knn', 'finetune', '--cfg-options', *options])
    after = {path: path.stat().st_mtime_ns for path in work_dir.rglob('result.json')}
    assert len(before) == 4 and len([path for path in before if before[path] == after[path]]) == 3
    repeated = json.loads((work_dir / 'results.json').read_text())
    assert repeated[:3] == rows[:3] and repeated[3]['value'] == rows[3]['value']

    with pytest.raises(SystemExit):  # of other settings
        evaluate.main([*argv, '--tasks', 'finetune'])
    assert 'seed_0 holds a run of other settings' in ' '.join(capsys.readouterr().err.split())


def test_learning_rates_are_scaled_unless_batches_are_accumulated(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(downstream, 'run_config', lambda module, cfg, folder, flags: calls.append(flags))
    monkeypatch.setattr(downstream, 'logged', lambda run: [{'accuracy/top1': 50.0}])
    for base, counts in ((64, 1), (64, 2), (None, 1)):
        cfg = Config(dict(auto_scale_lr=dict(base_batch_size=base), optim_wrapper=dict(accumulative_counts=counts)))
        downstream._do(downstream.Run('finetune', 'ours', 0, cfg, tmp_path), jobs=1, gpus=1)
    assert calls == [['--resume', '--auto-scale-lr'], ['--resume'], ['--resume']]


def test_refuses_data_of_other_classes(shapes, tmp_path, capsys):
    shutil.copytree(shapes / 'data', tmp_path / 'data')
    (tmp_path / 'data/shapes_imagenet/val/disc').rename(tmp_path / 'data/shapes_imagenet/val/disk')
    argv = [str(shapes / 'pretrained.pth'), '--data-root', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'runs')]
    with pytest.raises(SystemExit):
        evaluate.main([*argv, '--tasks', 'knn'])
    assert '2 are in one of them alone: disc, disk' in ' '.join(capsys.readouterr().err.split())
    assert not (tmp_path / 'runs').exists()


PARENT = """
from mmengine.config import Config
from pathlib import Path
from mmebm.experiments.processes import ending_together, run_config
with ending_together():
    run_config(['sleeper'], Config(), Path('run'))
"""
SLEEPER = """
import os, time
from pathlib import Path
Path('started').write_text(str(os.getpid()))
time.sleep(300)
"""


@pytest.mark.slow
def test_a_termination_ends_the_training_too(tmp_path):
    (tmp_path / 'sleeper.py').write_text(SLEEPER)
    environment = os.environ | dict(PYTHONPATH=f'{tmp_path}:{Path(__file__).parents[2]}')
    parent = subprocess.Popen([sys.executable, '-c', PARENT], cwd=tmp_path, env=environment)
    while not (tmp_path / 'started').is_file() or not (tmp_path / 'started').read_text():
        assert parent.poll() is None
        time.sleep(0.1)
    parent.terminate()
    assert parent.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'started').read_text()), 0)


def test_an_interrupt_starts_no_further_run(tmp_path, monkeypatch):
    started = []

    def interrupted(futures):
        raise KeyboardInterrupt

    monkeypatch.setattr(downstream, '_do', lambda run, *_: (started.append(run), time.sleep(0.2)))
    monkeypatch.setattr(downstream, 'as_completed', interrupted)
    runs = [downstream.Run('knn', 'ours', seed, Config(), tmp_path / str(seed)) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        downstream.perform(runs, jobs=1, gpus=1)
    assert started == runs[:1]


@pytest.mark.parametrize(
    'argv, message',
    [
        (['{folder}/none.pth'], 'No checkpoint'),
        (['{folder}/pretrained.pth', '--data-root', '{folder}/nowhere'], 'nowhere/shapes_imagenet.* does not exist'),
        (['{folder}/pretrained.pth', '--data-root', '{folder}/data', '--backbone', 'vit-x_shapes'], 'vit-x_shapes'),
        (['{folder}/other.pth', '--data-root', '{folder}/data', '--backbone', 'vit-t_shapes'], 'another architecture'),
        (['a/seed_0/x.pth', 'b/seed_0/x.pth'], '"seed_0", a/seed_0/x.pth and b/seed_0/x.pth; .* NAME=FILE'),
        (['run/epoch_50.pth', 'run=run/epoch_100.pth'], '"run", run/epoch_50.pth and run/epoch_100.pth'),
        (['{folder}/pretrained.pth', '--data-root', '{folder}/nowhere'], r'not exist\. Give .* --data-root, .* --data'),
        (
            ['{folder}/pretrained.pth', '--cfg-options', 'train_dataloader.dataset.data_root=x'],
            'must begin with one of finetune, as finetune.train_dataloader.dataset.data_root',
        ),
        (
            ['{folder}/pretrained.pth', '--cfg-options', 'linear.train_cfg.max_epochs=3'],
            'must begin with one of finetune',
        ),
        (['{folder}/pretrained.pth', '--data', '{folder}'], 'needs train/ and test/ or val/'),
        (['{folder}/pretrained.pth', '--backbone', 'vit-b'], 'vit-b: give backbone and data, as vit-b_in1k'),
        (['{folder}/pretrained.pth', '--jobs', '0'], '--jobs: 0 is no whole number of at least 1'),
        (['{folder}/pretrained.pth', '--seeds', '0', '0'], '--seeds 0 0: give different ones'),
        (['{folder}/slim.pth'], 'does not say with which config it was trained; --backbone names'),
        (['random={folder}/pretrained.pth'], 'pretrained.pth: "random" is the name of random weights.* NAME=FILE'),
        (
            ['{folder}/pretrained.pth', '--data-root', '{folder}/data', '--cfg-options', 'finetune.max_epochs=3'],
            'finetune: --cfg-options max_epochs: .* is at .*train_cfg.max_epochs',
        ),
    ],
)
def test_refuses_before_any_work(shapes, capsys, argv, message):
    if not (shapes / 'other.pth').exists():
        save_checkpoint('ebm_vit-t_shapes', shapes / 'other.pth')
        torch.save(dict(state_dict={'backbone.a': torch.ones(1)}), shapes / 'slim.pth')
    argv = [text.format(folder=shapes) for text in argv]
    with pytest.raises(SystemExit):
        evaluate.main([*argv, '--tasks', 'finetune', '--work-dir', str(shapes / 'unused')])
    assert re.search(message, ' '.join(capsys.readouterr().err.split()))
    assert not (shapes / 'unused').exists()


def test_random_weights_train_where_pretrained_ones_are_frozen(tmp_path, monkeypatch):
    """In part by detection; a linear probe leaves both alone."""
    monkeypatch.setattr(evaluation, 'check_data_roots', lambda *args: None)
    path = save_checkpoint('ebm_resnet50_in1k', tmp_path / 'a.pth')
    runs = evaluation.Evaluation([f'ours={path}'], tasks=['linear', 'det'], work_dir=tmp_path).plan_runs()
    backbones = {(run.task, run.init): run.cfg.model.backbone for run in runs}
    frozen = {key: (backbone.frozen_stages, backbone.get('norm_eval')) for key, backbone in backbones.items()}
    assert frozen['det', 'ours'] == (1, True)
    assert frozen['det', 'random'] == (-1, False)
    assert frozen['linear', 'random'] == frozen['linear', 'ours'] == (4, None)
