import uuid
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset

from mmebm.config_tree import differences
from mmebm.engine import ResumeHook
from mmebm.engine.resuming.position import check_length, own_paths
from mmebm.engine.resuming.settings import changed_settings

WARM_UP = dict(type='LinearLR', start_factor=0.1, begin=0, end=1, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', begin=1, end=4, convert_to_iter_based=True)
STEPS = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3), dict(type='MultiStepLR', milestones=[1, 3])]
SCHEDULE = [WARM_UP, COSINE]


class Model(BaseModel):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layers(inputs).square().mean()}


class RecordingHook(Hook):
    """Keeps the learning rate of every step, by epoch."""

    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.setdefault(runner.epoch, []).append(runner.optim_wrapper.get_lr()['lr'][0])


def collate(samples):
    return dict(inputs=torch.stack([inputs for (inputs,) in samples]))


def run(work_dir, epochs=4, lr=0.01, schedule=SCHEDULE, batch_size=2, checkpoint=None, resume=None, **options):
    """Train on eight samples; returns the runner and the learning rates, by epoch."""
    torch.manual_seed(0)
    recorder = RecordingHook()
    dataset = TensorDataset(torch.randn(8, 4))
    dataset.metainfo = {}
    optimizer = dict(type='AdamW', lr=lr) | options.pop('optimizer', {})
    runner = Runner(
        model=options.pop('model', None) or Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=dataset,
            sampler=dict(type=options.pop('sampler', 'DefaultSampler'), shuffle=False),
            collate_fn=collate,
        ),
        train_cfg=options.pop('train_cfg', dict(by_epoch=True, max_epochs=epochs)),
        optim_wrapper=dict(optimizer=optimizer, **options.pop('optim_wrapper', {})),
        param_scheduler=schedule,
        custom_hooks=[ResumeHook(), recorder],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1) | (checkpoint or {})),
        randomness=dict(seed=3),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='ERROR',
        resume=resume is not None,
        load_from=None if resume is None else str(resume),
        **options,
    )
    runner.train()
    return runner, recorder.rates


@pytest.fixture(scope='module')
def half(tmp_path_factory):
    """Folder of a training of two epochs, of the four that its schedule is for."""
    folder = tmp_path_factory.mktemp('half')
    run(folder, epochs=2)
    return folder


def test_the_same_settings_resume_exactly(half, tmp_path):
    whole, _ = run(tmp_path / 'whole')
    resumed, _ = run(tmp_path / 'resumed', resume=half / 'epoch_2.pth')
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)


LONGER = [dict(WARM_UP, end=1.5), dict(COSINE, begin=1.5, end=6)]


@pytest.mark.parametrize(
    'options',
    [
        dict(lr=0.002),
        dict(batch_size=4),
        dict(batch_size=1, lr=0.003),
        dict(epochs=6, schedule=LONGER),
        dict(schedule=STEPS),
        dict(schedule=None, lr=0.5),
        dict(schedule=[dict(type='OneCycleLR', eta_max=0.02, total_steps=16, by_epoch=False)]),
    ],
)
def test_learning_rates_are_those_of_a_training_that_began_with_the_present_settings(half, tmp_path, options):
    _, expected = run(tmp_path / 'whole', **options)
    runner, rates = run(tmp_path / 'resumed', resume=half / 'epoch_2.pth', **options)
    assert rates == {epoch: expected[epoch] for epoch in range(2, runner.max_epochs)}
    assert runner.iter == runner.max_iters
    assert (tmp_path / f'resumed/epoch_{runner.max_epochs}.pth').is_file()


def test_a_schedule_that_is_missing_in_the_checkpoint_is_not_begun_again(half, tmp_path):
    checkpoint = torch.load(half / 'epoch_2.pth', weights_only=False)
    del checkpoint['param_schedulers']
    torch.save(checkpoint, tmp_path / 'a.pth')
    _, expected = run(tmp_path / 'whole')
    _, rates = run(tmp_path / 'resumed', resume=tmp_path / 'a.pth')
    assert rates == {epoch: expected[epoch] for epoch in (2, 3)}


def test_hyper_parameters_are_the_present_ones(half, tmp_path):
    options = dict(weight_decay=0.5, betas=(0.8, 0.9))
    runner, _ = run(tmp_path, resume=half / 'epoch_2.pth', optimizer=options)
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert (group['weight_decay'], group['betas']) == (0.5, (0.8, 0.9))
    assert runner.optim_wrapper.optimizer.state[group['params'][0]]['step'] == 16  # the moments were resumed


def test_a_training_by_iteration(tmp_path):
    def train_cfg(iters):
        return dict(by_epoch=False, max_iters=iters)

    by_iteration = dict(checkpoint=dict(by_epoch=False, interval=6), sampler='InfiniteSampler')
    schedule = [dict(type='PolyLR', by_epoch=False, begin=0, end=12)]
    run(tmp_path / 'half', schedule=schedule, train_cfg=train_cfg(6), **by_iteration)
    options = dict(schedule=schedule, train_cfg=train_cfg(12), lr=0.002, **by_iteration)
    _, expected = run(tmp_path / 'whole', **options)
    _, rates = run(tmp_path / 'resumed', resume=tmp_path / 'half/iter_6.pth', **options)
    assert rates == {0: expected[0][6:]}
    with pytest.raises(
        ValueError, match=r'has 12 iterations done, more than train_cfg\.max_iters=6: .* larger max_iters'
    ):
        run(tmp_path, resume=tmp_path / 'whole/iter_12.pth', train_cfg=train_cfg(6), **by_iteration)


def test_that_nothing_is_left_to_train_is_said(half, tmp_path):
    said = []
    runner = SimpleNamespace(max_epochs=2, logger=SimpleNamespace(warning=said.append))
    check_length(1, 'max_epochs', runner, 'a.pth')
    assert not said
    check_length(2, 'max_epochs', runner, 'a.pth')
    assert said[0].startswith('a.pth has all 2 epochs of the training done: nothing is trained')
    _, rates = run(tmp_path, resume=half / 'epoch_2.pth', epochs=2)
    assert rates == {}


@pytest.mark.parametrize(('iteration', 'epoch'), [(3, 0), (4, 1), (6, 1)])
def test_a_checkpoint_by_iteration_begins_its_epoch_again(tmp_path, iteration, epoch):
    by_iteration = dict(checkpoint=dict(by_epoch=False), epochs=2)
    _, expected = run(tmp_path / 'whole', **by_iteration)
    runner, rates = run(tmp_path / 'resumed', resume=tmp_path / f'whole/iter_{iteration}.pth', **by_iteration)
    assert rates == {e: expected[e] for e in range(epoch, 2)}
    assert runner.iter == 8 and (tmp_path / 'resumed/iter_8.pth').is_file()


@pytest.mark.parametrize('part', ['message_hub', 'optimizer', 'meta'])
def test_a_checkpoint_that_lacks_a_part_is_refused(half, tmp_path, part):
    checkpoint = torch.load(half / 'epoch_2.pth', weights_only=False)
    del checkpoint[part]
    torch.save(checkpoint, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=rf'a\.pth cannot be resumed from: it has no {part}, .*load_from=.*a\.pth'):
        run(tmp_path, resume=tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(model=Model(width=9)), r'epoch_2\.pth is of another architecture than Model: of another shape: layers'),
        (dict(epochs=1), r'epoch_2\.pth has 2 epochs done, more than train_cfg\.max_epochs=1'),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0))),
            r'1 groups of 6 parameters .* make 6 of 6: optim_wrapper\.paramwise_cfg',
        ),
        (
            dict(schedule=[dict(type='ReduceOnPlateauLR', monitor='loss', rule='less')]),
            'ReduceOnPlateauLR depends on validations that are past',
        ),
    ],
)
def test_what_does_not_fit_is_refused(half, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, resume=half / 'epoch_2.pth', **options)


def test_weights_to_start_from_are_not_checked():
    hook = ResumeHook()
    hook.after_load_checkpoint(SimpleNamespace(_resume=False), dict(state_dict={}))
    assert hook._hyperparameters is None


def test_the_best_checkpoint_of_the_folder_that_was_copied_is_not_removed(tmp_path):
    (tmp_path / 'copy').mkdir()
    (tmp_path / 'copy/best.pth').touch()
    info = dict(best_ckpt='/original/best.pth', best_ckpt_acc='/original/best_acc.pth', best_score=0.5)
    hub = dict(runtime_info=info, resumed_keys=dict.fromkeys(info, True))
    runner = SimpleNamespace(work_dir=str(tmp_path / 'copy'), hooks=[CheckpointHook()])
    own_paths(dict(message_hub=hub), runner)
    assert info == dict(best_ckpt=str(tmp_path / 'copy/best.pth'), best_score=0.5)
    assert [*hub['resumed_keys']] == ['best_ckpt', 'best_score']


CONFIG = dict(
    model=dict(type='A', step_size='auto', training_step=dict(compile=True)),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=1),
    train_dataloader=dict(batch_size=8, num_workers=4, dataset=dict(data_root='a', pipeline=[dict(ratio=0.5)])),
    randomness=dict(seed=None),
    work_dir='x',
)


def changed(options, seed=0):
    cfg = Config(CONFIG)
    meta = dict(cfg=cfg.pretty_text, seed=seed)
    present = Config(CONFIG)
    present.merge_from_dict(options)
    return changed_settings(dict(meta=meta), present, 'a.pth')


def test_settings_that_hold_from_here_on_are_listed():
    options = {
        'optim_wrapper.optimizer.lr': 0.2,
        'optim_wrapper.accumulative_counts': 2,
        'train_dataloader.dataset.data_root': 'b',
        'train_dataloader.dataset.pipeline.0.ratio': 0.6,
        'train_dataloader.num_workers': 0,
        'model.training_step.compile': False,
        'model.backbone': dict(init_cfg=dict(type='Pretrained', checkpoint='moved.pth')),  # the checkpoint replaces it
        'work_dir': 'y',
        'auto_scale_lr.enable': True,
    }
    assert changed(options) == {
        'optim_wrapper.optimizer.lr': (0.1, 0.2),
        'optim_wrapper.accumulative_counts': (1, 2),
        'train_dataloader.dataset.data_root': ('a', 'b'),
        'train_dataloader.dataset.pipeline.0.ratio': (0.5, 0.6),
        'auto_scale_lr.enable': (None, True),
    }
    assert changed({}) == {}


@pytest.mark.parametrize(
    ('key', 'value', 'old'),
    [
        ('model.step_size', 1.0, "'auto'"),
        ('model.num_steps', 2, 'None'),
        ('optim_wrapper.optimizer.type', 'SGD', "'AdamW'"),
        ('randomness.seed', 5, '0'),
        ('train_cfg.by_epoch', False, 'None'),
        ('data_preprocessor.to_rgb', False, 'None'),
    ],
)
def test_settings_that_the_checkpoint_brings_along_are_refused(key, value, old):
    with pytest.raises(ValueError, match=rf'a\.pth .* cannot change: {key}={value!r} \(was {old}\)\. Set them as they'):
        changed({key: value})


def test_a_seed_that_is_the_checkpoints_is_not_refused():
    assert changed({'randomness.seed': 7}, seed=7) == {'randomness.seed': (None, 7)}


def test_a_checkpoint_without_a_config_is_not_compared():
    assert changed_settings(dict(meta={}), Config(CONFIG), 'a.pth') == {}


def test_differences_of_trees():
    old, new = dict(a=[1, dict(b=2)], c={}, d=0), dict(a=[1, dict(b=3), 4], c=dict(e=1), d=0)
    assert differences(old, new) == {'a.1.b': (2, 3), 'c': ({}, None), 'a.2': (None, 4), 'c.e': (None, 1)}


def test_a_schedule_by_validations_says_that_it_begins_anew(tmp_path, monkeypatch):
    schedule = [dict(type='ReduceOnPlateauLR', monitor='loss', rule='less', end=4)]
    run(tmp_path / 'half', epochs=2, schedule=schedule)
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: said.append(text))
    resumed = dict(resume=tmp_path / 'half/epoch_2.pth', schedule=schedule)
    run(tmp_path / 'same', **resumed)
    assert not [text for text in said if 'begins anew' in text]
    run(tmp_path / 'other', optimizer=dict(weight_decay=0.5), **resumed)
    assert [text for text in said if text.startswith('ReduceOnPlateauLR begins anew')]
