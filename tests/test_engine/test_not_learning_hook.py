import uuid

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tiny import ROOT
from torch import nn

from mmebm.engine import NotLearningHook

BATCHES = 5  # an epoch


class Model(BaseModel):
    """Logs given ratios, one in each iteration."""

    def __init__(self, ratios, key='objective_ratio'):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.ratios = iter(ratios)
        self.key = key

    def forward(self, inputs, mode='loss'):
        loss = self.layer(torch.ones(1)).square().sum()
        return {'loss': loss, 'step_size': torch.tensor([0.25]), self.key: torch.tensor(next(self.ratios))}


@pytest.fixture
def log(monkeypatch):
    """What hooks log as (level, text)."""
    records = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(
            MMLogger, level, lambda self, text, *args, level=level, **kwargs: records.append((level, str(text)))
        )
    return lambda: [(level, text) for level, text in records if text.startswith(('Not learning', 'Restoration has'))]


def train(work_dir, ratios, resume=False, cfg=None, key='objective_ratio', rising=False, **options):
    """The epochs of these ratios; a resumed training has done the first one."""
    runner = Runner(
        model=Model(ratios, key),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=[dict(inputs=torch.ones(1))] * BATCHES,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=len(ratios) // BATCHES + resume),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=100)] if rising else None,
        custom_hooks=[NotLearningHook(**(dict(after=6, window=3) | options))],
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        resume=resume,
        cfg=Config(dict(model=cfg or {})),
    )
    runner.train()
    return runner


def test_a_restoration_that_does_not_start_is_named_once(tmp_path, log):
    train(tmp_path, [3.0, 2.0, 1.0, 1.02, 0.98, 1.03, 1.0, 1.0, 1.0, 1.0])
    [(level, text)] = log()
    assert level == 'warning'
    assert text.startswith(
        'Not learning: after 6 iterations the restored images are hardly closer to the clean ones than the corrupted '
        'ones, or farther from them (objective_ratio 1.01, the mean of 3 iterations; 1 = nothing is restored, 0 = '
        'all). What to try: another learning rate (now 0.1); another model.step_size (now 0.25); more steps: smaller '
        'batches (train_dataloader.batch_size, '
    )


def test_a_restoration_that_starts_is_told_of_once(tmp_path, log):
    train(tmp_path, [1.0, 1.0, 0.9, 0.7, 0.5, 0.4, 1.5, 1.5, 1.5, 1.5])
    assert log() == [('info', 'Restoration has started: objective_ratio 0.97 after 3 iterations')]


def test_a_restoration_that_starts_late_is_told_of_after_the_warning(tmp_path, log):
    train(tmp_path, [1.0] * 7 + [0.5] * 3)
    assert [(level, text[:40]) for level, text in log()] == [
        ('warning', 'Not learning: after 6 iterations the res'),
        ('info', 'Restoration has started: objective_ratio'),
    ]
    assert log()[1][1].endswith('0.83 after 8 iterations')


@pytest.mark.parametrize(
    ('ratios', 'options'),
    [
        ([1.0] * 5, dict(after=6)),  # too short
        ([float('nan')] * 10, {}),  # which NonFiniteLossHook is for
        ([1.0] * 10, dict(key='other_ratio')),  # another model
    ],
)
def test_what_cannot_be_judged_is_not(tmp_path, log, ratios, options):
    train(tmp_path, ratios, **options)
    assert log() == []


def test_a_resumed_training_counts_all_its_iterations(tmp_path, log):
    train(tmp_path, [1.0] * 5, after=7)
    assert log() == []
    train(tmp_path, [1.0] * 5, resume=True, after=7)
    [(level, text)] = log()
    assert level == 'warning' and 'after 7 iterations' in text


def test_a_resumed_training_that_had_started_is_not_told_of_again(tmp_path, log):
    train(tmp_path, [0.5] * 5)
    assert log() == [('info', 'Restoration has started: objective_ratio 0.50 after 3 iterations')]
    train(tmp_path, [0.5] * 5, resume=True)
    assert len(log()) == 1


def test_only_the_main_process_speaks(tmp_path, log, monkeypatch):
    monkeypatch.setattr('mmebm.engine.hooks.not_learning_hook.is_main_process', lambda: False)
    train(tmp_path, [1.0] * 10)
    assert log() == []


def test_a_learning_rate_that_still_rises_is_mentioned(tmp_path, log):
    train(tmp_path, [1.0] * 10, rising=True)
    [(_, text)] = log()
    assert 'The learning rate is still rising, so that restoration may start later. What to try: ' in text
    assert 'another learning rate (now 0.015);' in text


OVERLAPPING, PATTERNS = 'overlapping patches', 'the loss of patterns within patches (norm_patch_size'
POSITIONS, ENERGY = 'mmebm.SinCosViT in place of', 'another energy (model.head.kind'
PIXELS = 'the loss of pixels (model.head.loss without norm_patch_size)'
NEIGHBOURS = "attention that begins with neighbours (model.backbone.init_cfg=dict(type='mmebm.TiedAttention'))"
ALL = (OVERLAPPING, PATTERNS, POSITIONS, ENERGY, PIXELS, NEIGHBOURS)


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('ebm-mask_vit-b_in1k', {PATTERNS, ENERGY, OVERLAPPING, NEIGHBOURS}),
        ('ebm_vit-b_in1k', {PIXELS, ENERGY, OVERLAPPING}),
        ('ebm_vit-t_shapes', {PATTERNS, ENERGY, POSITIONS, NEIGHBOURS}),
        ('continued/ebm_vit-b-mae_in1k', {PATTERNS, ENERGY, OVERLAPPING}),
        ('peers/ebm_vit-w128_32px', {PIXELS, ENERGY, OVERLAPPING, NEIGHBOURS}),
        ('ebm_resnet50_in1k', {PATTERNS, ENERGY}),
    ],
)
def test_what_to_try_is_what_the_config_does_not_do(tmp_path, log, config, expected):
    train(tmp_path, [1.0] * 10, cfg=Config.fromfile(f'{ROOT}/configs/{config}.py').model)
    [(_, text)] = log()
    assert {tip for tip in ALL if tip in text} == expected


def test_what_to_try_with_a_residual_energy_of_patterns(tmp_path, log):
    loss = dict(type='mmebm.RestorationLoss', norm_patch_size=4)
    train(tmp_path, [1.0] * 10, cfg=dict(head=dict(type='mmebm.ResidualEnergyHead', loss=loss)))
    [(_, text)] = log()
    assert {tip for tip in ALL if tip in text} == {PIXELS}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(window=0), 'window=0 and after=500, expected 1 <= window <= after'),
        (dict(after=50), 'window=100 and after=50'),
        (dict(threshold=0.0), 'threshold=0.0, expected above 0'),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NotLearningHook(**options)


@pytest.mark.parametrize('name', ['ebm_vit-b_in1k', 'ebm_resnet50_in1k', 'ebm_vit-t_folder', 'ebm_vit-t_shapes',
                                  'ebm_vit-t_cifar10', 'peers/ebm_vit-w128_32px', 'peers/ebm_convnext-w32_32px',
                                  'continued/ebm_vit-b-mae_in1k'])  # fmt: skip
def test_the_configs_of_restoration_have_the_hook(name):
    hooks = [hook.type for hook in Config.fromfile(f'{ROOT}/configs/{name}.py').custom_hooks]
    assert hooks.count('mmebm.NotLearningHook') == 1
