import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmebm.config_files import config_folder
from mmebm.launch.options import merge_options
from mmebm.launch.schedule import mismatch, schedule, stretched, without_short

CONFIGS = sorted(path for path in config_folder().rglob('*.py') if '_base_' not in path.parts)
STEPS = 20  # per epoch


def build(cfg, steps=STEPS):
    """A config's schedulers, and the length of its training in epochs and iterations."""
    train_cfg = cfg.train_cfg
    epochs = train_cfg.get('max_epochs', 1)
    iters = train_cfg.get('max_iters', epochs * steps)
    optimizer = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    schedulers = []
    for part in without_short(schedule(cfg), steps):
        part = dict(part)
        part.setdefault('end', epochs if part.get('by_epoch', True) else iters)
        part.pop('_scope_', None)
        schedulers.append(PARAM_SCHEDULERS.build(part, default_args=dict(optimizer=optimizer, epoch_length=steps)))
    return optimizer, schedulers, epochs, iters


def rates(cfg, steps=STEPS):
    """The learning rate of each iteration, as a share of the config's."""
    optimizer, schedulers, epochs, iters = build(cfg, steps)
    values = []
    for iteration in range(iters):
        values.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % steps == 0 and epochs > 1:
                scheduler.step()
    return values


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: str(path.relative_to(config_folder())))
def test_every_schedule_ends_with_the_training(path):
    shipped = Config.fromfile(path)
    key = 'max_epochs' if 'max_epochs' in shipped.train_cfg else 'max_iters'
    for length in (None, 6, 400):
        cfg = copy.deepcopy(shipped)
        if length:
            merge_options(cfg, {f'train_cfg.{key}': length if key == 'max_epochs' else 100 * length})
        _, schedulers, epochs, iters = build(cfg, steps=2000)
        assert schedulers and mismatch(schedulers, epochs, iters) is None


def test_the_warm_up_is_a_share_of_the_training():
    cfg = Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py')
    merge_options(cfg, {'train_cfg.max_epochs': 12})
    assert [(part.begin, part.end) for part in cfg.param_scheduler] == [(0, 1.2), (1.2, 12)]
    assert 'T_max' not in cfg.param_scheduler[1]
    values = rates(cfg)
    assert values.index(max(values)) == 23 and max(values) == pytest.approx(1)  # of 24 iterations of warm-up
    assert values[-1] < 1e-4


def test_a_training_of_one_epoch_decays():
    cfg = Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py')
    merge_options(cfg, {'train_cfg.max_epochs': 1})
    values = rates(cfg, steps=5)
    assert values[0] == 1 and values == sorted(values, reverse=True) and values[-1] < 0.1


def test_milestones_and_iterations():
    cfg = Config.fromfile(config_folder() / 'coco/mask-rcnn_ebm-vit-b_coco.py')
    merge_options(cfg, {'train_cfg.max_epochs': 50})
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, steps.end, steps.milestones) == (500, 50, [44, 48])


def test_options_of_the_schedule_win():
    cfg = Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py')
    merge_options(cfg, {'train_cfg.max_epochs': 12, 'param_scheduler.0.end': 2})
    assert [(part.begin, part.end) for part in cfg.param_scheduler] == [(0, 2), (10, 100)]


@pytest.mark.parametrize('options', [{'train_cfg.max_epochs': 100}, {'train_cfg.val_interval': 5}])
def test_the_same_length_leaves_the_schedule(options):
    cfg = Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py')
    merge_options(cfg, options)
    assert cfg.param_scheduler == Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py').param_scheduler


def test_a_schedule_that_did_not_fit_stays():
    cfg = Config.fromfile(config_folder() / 'ebm_vit-s_in1k.py')
    cfg.train_cfg.max_epochs = 50
    merge_options(cfg, {'train_cfg.max_epochs': 12})
    assert [(part.begin, part.end) for part in cfg.param_scheduler] == [(0, 10), (10, 100)]


def test_one_scheduler_or_none():
    for parts in (None, dict(type='ConstantLR', factor=1.0), dict(generator=[dict(type='ConstantLR')])):
        cfg = Config(dict(train_cfg=dict(max_epochs=4), param_scheduler=parts))
        merge_options(cfg, {'train_cfg.max_epochs': 8})
        assert cfg.param_scheduler in (parts, [parts])  # as it was


@pytest.mark.parametrize(
    ('part', 'expected'),
    [
        (dict(type='StepLR', step_size=5), dict(type='StepLR', step_size=2)),
        (dict(type='CosineAnnealingLR', T_max=7), dict(type='CosineAnnealingLR', T_max=3)),
        (dict(type='CosineRestartLR', periods=[5, 5]), dict(type='CosineRestartLR', periods=[2, 2])),
        (dict(type='MultiStepLR', milestones=[6, 9], end=10), dict(type='MultiStepLR', milestones=[2, 4], end=4)),
    ],
)
def test_what_counts_epochs_is_stretched(part, expected):
    assert stretched(part, 10, 4) == expected


def test_parts_of_less_than_two_steps_are_left_out():
    warm_up = dict(begin=0, end=0.6, convert_to_iter_based=True)
    assert without_short([warm_up, dict(begin=0, end=2), dict(begin=1, end=2), dict()], 3) == [dict(begin=0, end=2), {}]
    assert without_short([warm_up], 4) == [warm_up]


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (
            [dict(type='CosineAnnealingLR', end=100)],
            'CosineAnnealingLR goes on to epoch 100, but training ends after 12',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=20)],
            'CosineAnnealingLR goes on to epoch 20, but training ends after 12',
        ),
        ([dict(type='MultiStepLR', milestones=[8, 16])], 'MultiStepLR goes on to epoch 16, but training ends after 12'),
        ([dict(type='LinearLR', end=13)], 'LinearLR goes on to epoch 13'),
        ([dict(type='PolyLR', end=6)], 'PolyLR ends at epoch 6, and its last value stays until epoch 12'),
        (
            [dict(type='PolyLR', by_epoch=False, end=100)],
            'PolyLR ends at iteration 100, and its last value stays until iteration 240',
        ),
        ([dict(type='LinearLR', end=3)], None),
        ([dict(type='LinearLR', end=3), dict(type='CosineAnnealingLR', begin=3)], None),
        ([dict(type='PolyLR', end=6), dict(type='PolyLR', begin=6, end=12)], None),
        ([dict(type='ExponentialLR', gamma=0.9)], None),
        ([dict(type='CosineAnnealingLR', end=11.99, convert_to_iter_based=True)], None),
    ],
)
def test_a_schedule_that_ends_elsewhere(parts, message):
    _, schedulers, epochs, iters = build(Config(dict(train_cfg=dict(max_epochs=12), param_scheduler=parts)))
    assert (mismatch(schedulers, epochs, iters) or '').startswith(message or '')
    assert (mismatch(schedulers, epochs, iters) is None) == (message is None)
