import random
import uuid

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmebm.engine import EpochSeedHook

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


def test_ranks_draw_different_numbers(tmp_path, monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr('mmebm.engine.hooks.epoch_seed_hook.get_rank', lambda rank=rank: rank)
        recorder = _Recorder()
        _runner(tmp_path / str(rank), [*_seeded(), recorder]).train()
        drawn.append(_numbers(recorder))
    assert not torch.isin(drawn[0], drawn[1]).any()


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


def test_persistent_workers_are_refused(tmp_path):
    dataloader = {'num_workers': 1, 'persistent_workers': True}
    with pytest.raises(ValueError, match='persistent_workers=False'):
        _runner(tmp_path, [EpochSeedHook()], dataloader=dataloader).train()


def test_training_by_iteration_is_refused(tmp_path):
    with pytest.raises(ValueError, match='by_epoch=True'):
        _runner(tmp_path, [EpochSeedHook()], train_cfg={'by_epoch': False, 'max_iters': 4}).train()
