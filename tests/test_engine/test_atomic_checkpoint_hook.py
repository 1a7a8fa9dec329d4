import errno
import os
import signal
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import TensorDataset

from mmebm.engine import AtomicCheckpointHook, PreemptionHook
from mmebm.engine.hooks import atomic_checkpoint_hook
from mmebm.engine.resuming.stop_signals import REQUEUE, IgnoresSignals, catching_signals
from mmebm.output_files import write_atomically


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layer(inputs).square().mean()} if mode == 'loss' else [BaseDataElement()]


def collate(samples):
    return dict(inputs=torch.stack([inputs for (inputs,) in samples]))


def run(work_dir, *hooks, resume=False, max_epochs=2, optim_wrapper=None, **checkpoint):
    """Train two epochs of four iterations."""
    dataset = TensorDataset(torch.arange(32.0).view(8, 4))
    dataset.metainfo = {}
    runner = Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler'), collate_fn=collate
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)) | (optim_wrapper or {}),
        custom_hooks=[dict(type='mmebm.EpochSeedHook'), *hooks],
        default_hooks=dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook') | checkpoint),
        randomness=dict(seed=3),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='ERROR',
        resume=resume,
    )
    runner.train()
    return runner


def names(folder):
    return sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py'
    )  # the config's dump


class At(Hook):
    """Calls something before an iteration, or on a hook's stage."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            self.action(runner)


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_atomically(path, b'old')
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda descriptor: seen.append((path.read_bytes(), len(names(tmp_path)))))
    write_atomically(path, b'new')
    assert seen == [(b'old', 2), (b'new', 1)]  # the file beside it, then the folder
    assert names(tmp_path) == ['a.pth']


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_atomically(path, b'old')

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, b'new')
    assert path.read_bytes() == b'old' and names(tmp_path) == ['a.pth']


def test_old_checkpoints_go_after_the_new_one_is_there(tmp_path, monkeypatch):
    removed = []
    remove = AtomicCheckpointHook._remove
    monkeypatch.setattr(
        AtomicCheckpointHook,
        '_remove',
        lambda self, name: (removed.append((name, names(tmp_path))), remove(self, name)),
    )
    run(tmp_path, by_epoch=False, interval=2, max_keep_ckpts=2)
    assert removed[0] == ('iter_2.pth', ['iter_2.pth', 'iter_4.pth', 'iter_6.pth', 'last_checkpoint'])
    assert names(tmp_path) == ['iter_6.pth', 'iter_8.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_8.pth')


def test_mmengines_hook_removes_the_old_one_before(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Runner, 'save_checkpoint', lambda *args, **kwargs: seen.append(names(tmp_path)))
    (tmp_path / 'epoch_1.pth').touch()
    run(tmp_path, type='CheckpointHook', interval=1, max_keep_ckpts=1)
    assert seen == [['epoch_1.pth'], ['last_checkpoint']]


class Rising(BaseMetric):
    """One more at each evaluation."""

    default_prefix = 'rising'
    value = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.value += 1
        return dict(value=self.value)


@pytest.mark.parametrize('resumed', [False, True])
def test_the_best_checkpoint_may_keep_its_name(tmp_path, resumed):
    """In training by iterations all of them are ``best_..._epoch_0.pth``, unless the hook counts iterations."""
    run_by_iterations(tmp_path, max_iters=4)
    if resumed:  # and nothing is better any more
        run_by_iterations(tmp_path, max_iters=8, resume=True)
    assert [name for name in names(tmp_path) if name.startswith('best')] == ['best_rising_value_epoch_0.pth']
    best = torch.load(tmp_path / 'best_rising_value_epoch_0.pth', weights_only=False)
    assert best['meta']['iter'] == 4


def run_by_iterations(work_dir, max_iters, resume=False):
    dataset = TensorDataset(torch.arange(32.0).view(8, 4))
    dataset.metainfo = {}
    loader = dict(batch_size=2, num_workers=0, dataset=dataset, collate_fn=collate)
    metric = Rising()
    metric.value = -100 * resume
    Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=loader | dict(sampler=dict(type='InfiniteSampler')),
        val_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=[metric],
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
        default_hooks=dict(
            checkpoint=dict(type='mmebm.AtomicCheckpointHook', save_best='rising/value', rule='greater')
        ),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='ERROR',
        resume=resume,
    ).train()


def test_what_a_killed_run_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(AtomicCheckpointHook, '_remove_obsolete', lambda self: None)  # as if killed before
    run(tmp_path, by_epoch=False, interval=4, max_keep_ckpts=1)
    (tmp_path / '.iter_9.pth.partial').touch()
    assert names(tmp_path) == ['.iter_9.pth.partial', 'iter_4.pth', 'iter_8.pth', 'last_checkpoint']
    monkeypatch.undo()
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    run(tmp_path, resume=True, by_epoch=False, interval=4, max_keep_ckpts=1)
    assert names(tmp_path) == ['iter_8.pth', 'last_checkpoint']


def test_a_full_disk_ends_the_run_with_what_is_left(tmp_path, monkeypatch):
    def full(runner):
        def put(*args):
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr('mmebm.engine.atomic_backend.write_atomically', put)

    message = r'No checkpoint could be written to .* after 8 iterations: No space left .*Nothing was removed; the last '
    with pytest.raises(OSError, match=message + r'whole checkpoint is .*epoch_1\.pth\. Make room'):
        run(tmp_path, At(5, full), interval=1, max_keep_ckpts=1)
    assert names(tmp_path) == ['epoch_1.pth', 'last_checkpoint']


def test_checkpoints_by_time_replace_each_other(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 40))
    monkeypatch.setattr(atomic_checkpoint_hook.time, 'monotonic', lambda: next(clock))
    saved = []
    monkeypatch.setattr(
        AtomicCheckpointHook, '_remove', lambda self, name: (saved.append(name), Path(self.out_dir, name).unlink())
    )
    run(tmp_path, every_minutes=1, interval=2)
    assert len(saved) == len({*saved}) >= 2 and all(name.startswith('iter_') for name in saved)
    assert names(tmp_path) == ['epoch_2.pth', 'last_checkpoint']


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def spoil(runner):
        runner.model.layer.bias.data.fill_(float('nan'))
        signal_to_this_process(runner)

    with pytest.raises(SystemExit), catching_signals():
        run(tmp_path, At(6, spoil), PreemptionHook(), interval=1)
    assert names(tmp_path) == ['epoch_1.pth', 'last_checkpoint']


def test_minutes_that_are_none_are_refused():
    with pytest.raises(ValueError, match='every_minutes must be positive or None, not 0'):
        AtomicCheckpointHook(every_minutes=0)


def signal_to_this_process(runner):
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_leaves_a_checkpoint_and_the_exit_code(tmp_path):
    with pytest.raises(SystemExit) as end, catching_signals():
        run(tmp_path, At(6, signal_to_this_process), PreemptionHook(), interval=1)
    assert end.value.code == REQUEUE == 75
    assert names(tmp_path) == ['epoch_1.pth', 'iter_6.pth', 'last_checkpoint']
    run(tmp_path, PreemptionHook(), resume=True, interval=1)
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'last_checkpoint']  # the next checkpoint replaces it


def test_with_accumulated_gradients_the_checkpoint_waits_for_the_update(tmp_path):
    with pytest.raises(SystemExit), catching_signals():
        run(tmp_path, At(5, signal_to_this_process), PreemptionHook(), optim_wrapper=dict(accumulative_counts=2))
    assert 'iter_6.pth' in names(tmp_path)


def test_a_signal_in_the_last_iteration_of_an_epoch_leaves_that_of_the_epoch(tmp_path):
    with pytest.raises(SystemExit), catching_signals():
        run(tmp_path, At(4, signal_to_this_process), PreemptionHook(), interval=2)
    meta = torch.load(tmp_path / 'iter_4.pth', weights_only=False)['meta']
    assert (meta['epoch'], meta['iter'], meta['data_position']['samples']) == (1, 4, 0)


def test_a_signal_before_the_first_iteration_ends_at_once(capsys):
    with pytest.raises(SystemExit) as end, catching_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert end.value.code == REQUEUE and capsys.readouterr().err.startswith('SIGUSR1 before the first iteration')
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_hook_needs_the_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"default_hooks\.checkpoint\.type='mmebm\.AtomicCheckpointHook'"):
        run(tmp_path, PreemptionHook(), type='CheckpointHook')


def test_workers_ignore_the_signals():
    called, before = [], signal.getsignal(signal.SIGTERM)
    try:
        IgnoresSignals(called.append)(3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert called == [3]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_training_by_our_command_gets_both_hooks():
    from mmebm.launch.preparation import make_checkpoints_atomic

    def kind(checkpoint):
        cfg = Config(dict(default_hooks=dict(checkpoint=checkpoint)))
        make_checkpoints_atomic(cfg)
        return cfg.default_hooks.checkpoint

    assert kind(dict(type='CheckpointHook', interval=5)) == dict(type='mmebm.AtomicCheckpointHook', interval=5)
    assert kind(dict(type='Own')) == dict(type='Own')
    assert kind(None) is None
    assert issubclass(AtomicCheckpointHook, CheckpointHook)
