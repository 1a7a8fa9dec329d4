import random
import uuid
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from mmebm.engine import EpochSeedHook
from mmebm.engine.resuming.data_position import Start, exact_start
from mmebm.engine.resuming.stream import Stream

EPOCHS = 4


class _RandomNumbers(Dataset):
    """Each image is three random numbers: of NumPy, torch and Python."""

    def __len__(self):
        return 8

    def __getitem__(self, idx):
        numbers = [np.random.rand(), torch.rand(()).item(), random.random()]
        return {'inputs': torch.tensor([idx, *numbers]).float()}


class _Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layers(inputs).square().mean()}


class _Recorder(Hook):
    """Keep what each epoch saw: a list of batches (N, 4) an epoch."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.setdefault(runner.epoch, []).append(data_batch['inputs'])
        if (runner.epoch, batch_idx) == self.fail_at:
            raise KeyboardInterrupt


def _runner(work_dir, hooks, num_workers=0, randomness=None, **options):
    dataloader = {
        'batch_size': 4,
        'num_workers': num_workers,
        'dataset': _RandomNumbers(),
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
        'collate_fn': {'type': 'default_collate'},
    }
    dataloader.update(options.pop('dataloader', {}))
    wrapper = {'optimizer': {'type': 'AdamW', 'lr': 0.01}} | options.pop('optim_wrapper', {})
    torch.manual_seed(0)  # of the initial weights
    return Runner(
        model=_Model(),
        work_dir=str(work_dir),
        train_dataloader=dataloader,
        train_cfg=options.pop('train_cfg', {'by_epoch': True, 'max_epochs': EPOCHS}),
        optim_wrapper=wrapper,
        custom_hooks=hooks,
        randomness=randomness or {'seed': 3},
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='ERROR',
        **options,
    )


def _interrupted_and_resumed(work_dir, hooks, **options):
    """Train four epochs at once, and two, a half, and two; return the two runners."""
    killed, resumed = _Recorder(fail_at=(2, 1)), _Recorder()
    straight = _runner(work_dir / 'whole', hooks(), **options)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        _runner(work_dir / 'parts', [*hooks(), killed], **options).train()
    second = _runner(work_dir / 'parts', [*hooks(), resumed], resume=True, **options)
    second.train()
    assert sorted(resumed.seen) == [2, 3]  # the half epoch is done again
    return straight, second


def _same_state(left, right):
    weights = [torch.equal(a, b) for a, b in zip(left.model.parameters(), right.model.parameters(), strict=True)]
    moments = [
        torch.equal(a[key], b[key])
        for a, b in zip(
            left.optim_wrapper.state_dict()['state'].values(),
            right.optim_wrapper.state_dict()['state'].values(),
            strict=True,
        )
        for key in ('exp_avg', 'exp_avg_sq', 'step')
    ]
    return all(weights) and all(moments)


def _seeded():
    return [{'type': 'mmebm.EpochSeedHook'}]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, num_workers):
    straight, resumed = _interrupted_and_resumed(tmp_path, _seeded, num_workers=num_workers)
    assert _same_state(straight, resumed)


def test_a_resumed_run_equals_the_uninterrupted_one_where_an_epoch_ends_amid_accumulated_batches(tmp_path):
    options = {'optim_wrapper': {'accumulative_counts': 2}, 'dataloader': {'batch_size': 3}}  # three batches an epoch
    straight, resumed = _interrupted_and_resumed(tmp_path, _seeded, **options)
    assert _same_state(straight, resumed)
    assert straight.optim_wrapper.state_dict()['state'][0]['step'] == 2 * EPOCHS


@pytest.mark.parametrize('num_workers', [0, 2])
def test_without_the_hook_it_does_not(tmp_path, num_workers):
    straight, resumed = _interrupted_and_resumed(tmp_path, list, num_workers=num_workers)
    assert not _same_state(straight, resumed)


@pytest.mark.parametrize(('hooks', 'repeats'), [(_seeded, True), (list, False)])
def test_the_sampler_resumes_although_no_seed_is_in_the_config(tmp_path, hooks, repeats):
    killed, resumed = _Recorder(fail_at=(2, 1)), _Recorder()
    with pytest.raises(KeyboardInterrupt):
        _runner(tmp_path, [*hooks(), killed], randomness={'seed': None}).train()
    _runner(tmp_path, [*hooks(), resumed], randomness={'seed': None}, resume=True).train()
    assert torch.equal(torch.cat(killed.seen[2]), torch.cat(resumed.seen[2])) == repeats


def _numbers(recorder):
    """The random numbers drawn, (epochs, images, 3), images in the order of their index."""
    epochs = [torch.cat(recorder.seen[epoch]) for epoch in sorted(recorder.seen)]
    return torch.stack([epoch[epoch[:, 0].argsort(), 1:] for epoch in epochs])


@pytest.mark.parametrize('num_workers', [0, 2])
def test_no_number_is_drawn_twice(tmp_path, num_workers):
    recorder = _Recorder()
    _runner(tmp_path, [*_seeded(), recorder], num_workers=num_workers).train()
    numbers = _numbers(recorder)
    assert numbers.shape == (EPOCHS, 8, 3)
    for source in numbers.unbind(-1):  # NumPy, torch, Python
        assert source.unique().numel() == EPOCHS * 8


def test_without_the_hook_workers_repeat_themselves(tmp_path):
    recorder = _Recorder()
    _runner(tmp_path, [recorder], num_workers=2).train()
    assert _numbers(recorder)[..., 0].unique().numel() == 8  # not 32


def test_ranks_draw_different_numbers_in_the_model(tmp_path, monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr('mmebm.engine.hooks.epoch_seed_hook.get_rank', lambda rank=rank: rank)
        recorder = _ModelNumbers()
        _runner(tmp_path / str(rank), [*_seeded(), recorder]).train()
        drawn.append(torch.tensor(recorder.drawn))
    assert len(drawn[0]) == 2 * EPOCHS
    assert torch.cat(drawn).unique().numel() == 4 * EPOCHS


class _ModelNumbers(Hook):
    """Draws a number where the model would."""

    def __init__(self):
        self.drawn = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.drawn.append(torch.rand(()).item())


@pytest.mark.parametrize(
    'options', [dict(num_workers=2), dict(dataloader=dict(num_workers=1, persistent_workers=True))]
)
def test_workers_change_nothing(tmp_path, options):
    alone, recorder = _Recorder(), _Recorder()
    straight = _runner(tmp_path / 'a', [*_seeded(), alone])
    other = _runner(tmp_path / 'b', [*_seeded(), recorder], **options)
    straight.train(), other.train()
    assert torch.equal(_numbers(alone), _numbers(recorder))
    assert _same_state(straight, other)


def test_the_users_worker_init_fn_still_runs(tmp_path):
    torch.set_num_threads(1)
    recorder = _Recorder()
    dataloader = {'num_workers': 1, 'dataset': _NumThreads(), 'worker_init_fn': {'type': _set_three_threads}}
    _runner(tmp_path, [*_seeded(), recorder], dataloader=dataloader).train()
    assert torch.cat(recorder.seen[3])[:, 0].tolist() == [3.0] * 8


class _NumThreads(_RandomNumbers):
    def __getitem__(self, idx):
        return {'inputs': torch.tensor([torch.get_num_threads(), 0, 0, 0]).float()}


def _set_three_threads(worker_id):
    torch.set_num_threads(3)


BY_EPOCH = dict(by_epoch=True, max_epochs=EPOCHS)
BY_ITERATION = dict(by_epoch=False, max_iters=4 * EPOCHS)
ENDLESS = dict(type='InfiniteSampler', shuffle=True)
SHUFFLED = dict(type='DefaultSampler', shuffle=True)
REPEATED = dict(type='mmpretrain.RepeatAugSampler', num_repeats=2)


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize(
    ('train_cfg', 'sampler'),
    [(BY_EPOCH, SHUFFLED), (BY_EPOCH, REPEATED), (BY_ITERATION, ENDLESS), (BY_ITERATION, SHUFFLED)],
)
def test_a_run_resumed_within_an_epoch_equals_the_uninterrupted_one(tmp_path, train_cfg, sampler, num_workers):
    """Four batches of two an epoch; the checkpoint is from the sixth iteration, the kill in the eighth."""
    options = dict(
        train_cfg=train_cfg,
        default_hooks=dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook', by_epoch=False, interval=6)),
    )
    dataloader = dict(batch_size=2, sampler=sampler)
    whole, killed, resumed = _Counter(), _Counter(fail_at=8), _Counter()
    straight = _runner(tmp_path / 'whole', [*_seeded(), whole], dataloader=dataloader, **options)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        _runner(tmp_path / 'parts', [*_seeded(), killed], dataloader=dataloader, **options).train()
    second = _runner(
        tmp_path / 'parts',
        [*_seeded(), resumed],
        resume=True,
        dataloader=dataloader | dict(num_workers=num_workers, dataset=_Reads()),
        **options,
    )
    second.train()
    assert sorted(resumed.seen) == list(range(6, 16))
    assert all(torch.equal(resumed.seen[i], whole.seen[i]) for i in resumed.seen)
    assert resumed.batch_idx[:3] == ([6, 7, 8] if train_cfg is BY_ITERATION else [2, 3, 0])
    assert _same_state(straight, second)
    if num_workers == 0:
        assert second.train_dataloader.dataset.reads == 2 * 10  # no batch was read to be skipped


def test_no_number_is_drawn_twice_by_iteration(tmp_path):
    recorder = _Counter()
    dataloader = dict(batch_size=2, sampler=ENDLESS)
    _runner(tmp_path, [*_seeded(), recorder], dataloader=dataloader, train_cfg=BY_ITERATION).train()
    numbers = torch.cat([*recorder.seen.values()])[:, 1]
    assert numbers.unique().numel() == numbers.numel() == 32


def test_repetitions_of_a_sample_draw_anew(tmp_path):
    recorder = _Recorder()
    _runner(tmp_path, [*_seeded(), recorder], dataloader=dict(sampler=REPEATED)).train()
    numbers = torch.cat(recorder.seen[0])
    assert numbers[:, 0].unique().numel() == 4  # each of four images twice
    assert numbers[:, 1].unique().numel() == 8


class _Reads(_RandomNumbers):
    """Counts what is read."""

    reads = 0

    def __getitem__(self, idx):
        self.reads += 1
        return super().__getitem__(idx)


class _Counter(Hook):
    """Keep what each iteration saw."""

    def __init__(self, fail_at=None):
        self.fail_at, self.seen, self.batch_idx = fail_at, {}, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen[runner.iter] = data_batch['inputs']
        self.batch_idx.append(batch_idx)
        if runner.iter == self.fail_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(('processes', 'sampler'), [(2, SHUFFLED), (3, SHUFFLED), (2, REPEATED), (2, ENDLESS)])
def test_another_number_of_processes_continues_the_same_order(monkeypatch, processes, sampler):
    """Of 24 images, 12 are done, by one process or by two; the others follow in one order, with the same draws."""

    def order(world, samples):
        ranks = []
        for rank in range(world):
            for name in ('mmengine.dataset.sampler', 'mmpretrain.datasets.samplers.repeat_aug'):
                monkeypatch.setattr(f'{name}.get_dist_info', lambda rank=rank: (rank, world))
            monkeypatch.setattr('mmebm.engine.resuming.stream.get_rank', lambda rank=rank: rank)
            monkeypatch.setattr('mmebm.engine.resuming.stream.get_world_size', lambda: world)
            stream = Stream(DATA_SAMPLERS.build(dict(sampler, dataset=range(24), seed=0)))
            stream.start = samples // world
            ranks.append([draw.key for draw in islice(iter(stream), 12 // world)])
        return [key for step in zip(*ranks, strict=True) for key in step]

    whole = order(1, 0) + order(1, 12)
    assert order(processes, 0) + order(processes, 12) == whole
    assert len({index for _, index, _ in whole}) == (12 if sampler is REPEATED else 24)


def test_what_cannot_be_entered_within_an_epoch_is_said():
    class Batches(BatchSampler):
        pass

    def start(samples=8, batch_sampler=BatchSampler, **stored):
        loader = DataLoader(range(24), batch_sampler=batch_sampler(DefaultSampler(range(24), seed=0), 4, False))
        state = dict(epoch=3, samples=samples, processes=2, sampler='DefaultSampler', images=24) | stored
        return exact_start(dict(meta=dict(data_position=state)), SimpleNamespace(train_dataloader=loader))

    assert start() == (Start(3, 8, 2), '')
    assert start(samples=0) == (Start(3), '')
    assert start(samples=9) == (Start(3, 9, 2), '')
    assert start(samples=24) == (Start(4), '')
    assert start(batch_sampler=Batches) == (None, 'Batches makes the batches, which can only begin with the first')
    assert start(images=23) == (None, 'the data set has 24 images now, and had 23')
    assert start(sampler='A') == (None, 'the sampler is DefaultSampler now, and was A')
    assert exact_start(dict(meta={}), SimpleNamespace(train_dataloader=None))[0] is None


def test_a_loader_without_batches_of_indices_is_refused(tmp_path):
    with pytest.raises(ValueError, match='_Endless is not read by batches of indices'):
        _runner(tmp_path, [EpochSeedHook()], dataloader=dict(dataset=_Endless(), sampler=None)).train()


class _Endless(IterableDataset):
    def __len__(self):
        return 8

    def __iter__(self):
        yield {'inputs': torch.zeros(4)}
