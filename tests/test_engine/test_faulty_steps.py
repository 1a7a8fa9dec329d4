"""Training steps with losses and gradients that are not finite: skipped, captured, run again, rolled back."""

import copy
import errno
import os
import socket
import uuid
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from mmebm.commands.replay import main as replay
from mmebm.engine.evaluating import evaluating
from mmebm.engine.faulty_steps.capture import read_capture
from mmebm.engine.faulty_steps.spikes import Spikes
from mmebm.engine.hooks import NonFiniteLossHook, ResumeHook
from mmebm.registry import MODELS

NAN, INF = float('nan'), float('inf')
BATCHES = 6  # an epoch, of two images each


class Images(Dataset):
    """Images of two values; those of some batches are replaced."""

    def __init__(self, faults):
        self.faults = faults

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, idx):
        inputs = torch.tensor([1.0, idx]) / 10
        value = self.faults.get(idx // 2)
        if value is not None and idx % 2:
            inputs[0] = value
        return {'inputs': inputs, 'data_samples': BaseDataElement(metainfo={'img_path': f'images/{idx}.jpg'})}


class Model(BaseModel):
    """With running statistics, which its forward pass changes, and random numbers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.layer = nn.Linear(2, 1)
        self.root = False

    def forward(self, inputs, data_samples, mode='loss'):
        inputs = torch.stack(inputs)
        values = self.layer(self.norm(inputs)).square() * (1 + torch.rand(1)) * (1e4 if inputs.max() > 100 else 1)
        if self.root:  # finite at zero, but without a derivative
            values = values + (inputs.abs().sum() * self.layer.weight.sum() * 0).abs().sqrt()
        return {'loss_values': values.mean()}


class RootModel(Model):
    def __init__(self):
        super().__init__()
        self.root = True


class States(Hook):
    """The model's and the optimiser's state before and after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.before, self.after, self.outputs = [], [], []

    def _state(self, runner):
        return copy.deepcopy([runner.model.state_dict(), runner.optim_wrapper.state_dict()])

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before.append(self._state(runner))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.after.append(self._state(runner))
        self.outputs.append(dict(outputs))


class Faults(Hook):
    """Replaces images of some batches in some epochs."""

    def __init__(self, faults):
        self.faults = faults

    def before_train_epoch(self, runner):
        runner.train_dataloader.dataset.faults = self.faults.get(runner.epoch, {})


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in (Model, RootModel):
        monkeypatch.setitem(MODELS.module_dict, kind.__name__, kind)


def train(
    faults=None, epochs=1, model='mmebm.Model', hooks=(), wrapper=None, distributed=False, schedule=None, resume=None,
    checkpoint=None,
    **options,
):  # fmt: skip
    states = States()
    cfg = dict(
        model=dict(type=model),
        work_dir='out',
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=Images(faults or {}),
                              sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)) | (wrapper or {}),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1), checkpoint=checkpoint or dict(type='CheckpointHook', interval=1)
        ),
        randomness=dict(seed=0),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        launcher='pytorch' if distributed else 'none',
            )  # fmt: skip
    wrapped = dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)) if distributed else {}
    runner = Runner(
        **cfg,
        param_scheduler=schedule,
        load_from=resume,
        resume=resume is not None,
        custom_hooks=[NonFiniteLossHook(**options), states, *hooks],
        cfg=dict(model=dict(type=model), optim_wrapper=cfg['optim_wrapper'], **wrapped),
    )
    runner.train()
    return runner, states


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def replayed(capsys, path):
    capsys.readouterr()
    replay([path])
    return dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines() if ': ' in line)


def log():
    return ''.join(path.read_text() for path in Path('out').glob('*/*.log'))


@pytest.mark.parametrize('value', [NAN, INF])
def test_a_faulty_step_changes_nothing_and_is_not_logged(value):
    runner, states = train({2: value, 4: value})
    changed = [not equal(*pair) for pair in zip(states.before, states.after, strict=True)]
    assert changed == [True, True, False, True, False, True]
    assert all(state.isfinite().all() for state in runner.model.state_dict().values())
    assert ['loss' in outputs for outputs in states.outputs] == [True, True, False, True, False, True]
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').data[0]).all()
    assert runner.message_hub.get_info('skipped_steps') == 2
    text = log()
    assert (
        'Skipped a step (1 so far): The loss is not finite: loss = nan, loss_values = nan in epoch 1, iteration 3. '
        in text
    )
    assert 'Images of the batch: images/4.jpg, images/5.jpg. To run it again: tools/replay.py /' in text
    assert 'The training has skipped 2 steps' in text and 'loss: nan' not in text


def test_the_first_step_can_be_skipped():
    runner, states = train({0: NAN})
    assert equal(states.before[0], states.after[0]) and not equal(states.before[1], states.after[1])


class Measures(Hook):
    """As hooks of mmebm that compute energies between steps, or before the first one."""

    def measure(self, runner):
        with evaluating(runner.model), runner.optim_wrapper.optim_context(runner.model):
            pass

    def before_train(self, runner):
        self.measure(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.measure(runner)


def test_a_faulty_step_is_undone_where_hooks_measure():
    runner, states = train({0: NAN, 2: NAN}, hooks=[Measures()])
    changed = [not equal(*pair) for pair in zip(states.before, states.after, strict=True)]
    assert changed == [False, True, False, True, True, True]
    assert runner.model.norm.running_mean.isfinite().all() and runner.model.norm.num_batches_tracked == 4


def test_a_gradient_alone_is_enough():
    with pytest.raises(
        FloatingPointError, match=r'The norm of gradients is nan in epoch 1, iteration 5 \(5 steps in a row'
    ):
        train(model='mmebm.RootModel')


def test_accumulated_gradients_are_left_out_together():
    _, states = train({2: NAN}, wrapper=dict(accumulative_counts=2))
    changed = [not equal(a[1], b[1]) for a, b in zip(states.before, states.after, strict=True)]
    assert changed == [False, True, False, False, False, True]
    assert equal(states.after[1], states.after[3])  # running statistics, too
    assert 'images/4.jpg' in log() and 'images/6.jpg' not in log()


def test_so_many_in_a_row_stop():
    with pytest.raises(
        FloatingPointError, match=r'iteration 5 \(3 steps in a row\)\.\n.*images/8\.jpg.*\nLast checkpoint'
    ):
        train({0: NAN, 2: NAN, 3: NAN, 4: NAN}, max_in_a_row=3)


def test_rolling_back():
    """To the checkpoint of the first epoch, from the middle of the second."""
    runner, states = train(
        epochs=2, hooks=[Faults({1: {2: NAN, 3: NAN}})], max_in_a_row=2, then='roll_back', lr_factor=0.1
    )
    end_of_epoch, rolled_back = states.after[BATCHES - 1], states.before[BATCHES + 4]
    assert not equal(end_of_epoch[0], states.after[BATCHES + 1][0])
    assert equal(end_of_epoch[0], rolled_back[0])
    assert rolled_back[1]['param_groups'][0]['lr'] == pytest.approx(0.01)
    assert equal(end_of_epoch[1]['state'], rolled_back[1]['state'])
    assert 'epoch_1.pth; learning rates are multiplied by 0.1 (1 of 3 times)' in log()
    assert runner.iter == 2 * BATCHES


def test_a_fault_right_after_rolling_back_leaves_the_buffers_of_the_checkpoint():
    faults = {1: {2: NAN, 3: NAN, 4: NAN}}
    _, states = train(epochs=2, hooks=[Faults(faults)], max_in_a_row=2, then='roll_back')
    assert equal(states.after[BATCHES + 4][0], states.after[BATCHES - 1][0])


def test_a_capture_that_does_not_fit_on_the_disk_is_left_out(monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('mmebm.engine.faulty_steps.capture.write_atomically', full)
    train({2: NAN})
    assert 'It could not be captured: [Errno 28] No space left on device' in log()


def test_rolling_back_needs_the_state_of_the_optimiser():
    with pytest.raises(ValueError, match="then='roll_back' needs the optimiser's state in checkpoints"):
        train(then='roll_back', checkpoint=dict(type='CheckpointHook', save_optimizer=False))


@pytest.mark.parametrize('schedule', [None, dict(type='CosineAnnealingLR', T_max=4, by_epoch=True)])
def test_a_resumed_training_keeps_the_lower_learning_rate(schedule):
    options = dict(max_in_a_row=2, then='roll_back', lr_factor=0.1, schedule=schedule)
    hooks = [Faults({1: {2: NAN, 3: NAN}}), ResumeHook()]
    _, states = train(epochs=4, hooks=hooks, **options)
    _, resumed = train(epochs=4, hooks=[Faults({}), ResumeHook()], resume='out/epoch_2.pth', **options)
    rates = [state[1]['param_groups'][0]['lr'] for state in states.before[2 * BATCHES :]]
    assert [state[1]['param_groups'][0]['lr'] for state in resumed.before] == pytest.approx(rates)
    assert max(rates) < 0.0101


def test_a_new_learning_rate_is_taken_as_it_is():
    options = dict(max_in_a_row=2, then='roll_back', lr_factor=0.1)
    train(epochs=2, hooks=[Faults({1: {2: NAN, 3: NAN}}), ResumeHook()], **options)
    slower = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
    _, resumed = train(epochs=3, hooks=[Faults({}), ResumeHook()], resume='out/epoch_2.pth', wrapper=slower, **options)
    assert {state[1]['param_groups'][0]['lr'] for state in resumed.before} == {0.05}


def test_without_a_checkpoint_rolling_back_stops():
    with pytest.raises(FloatingPointError, match='Last checkpoint: none written yet'):
        train({0: NAN, 1: NAN}, max_in_a_row=2, then='roll_back')


def test_loss_scaling_handles_overflowing_gradients_itself(monkeypatch):
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**120)  # of which gradients overflow
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{module}.GradScaler', lambda **_: scaler)
    monkeypatch.setattr(AmpOptimWrapper, 'optim_context', lambda self, model: nullcontext())
    runner, states = train({0: 1e4, 5: NAN}, wrapper=dict(type='AmpOptimWrapper'))
    weights = [[state[0]['layer.weight'] for state in part] for part in (states.before, states.after)]
    assert [not equal(*pair) for pair in zip(*weights, strict=True)] == [False, True, True, True, True, False]
    assert scaler.get_scale() == 2.0**119  # lowered once, not by the loss that is not finite
    assert runner.message_hub.get_info('skipped_steps') == 1


def test_spikes_are_values_far_above_the_last():
    spikes = Spikes(6)
    rng = np.random.default_rng(0)
    assert not any(spikes.is_spike(value) for value in [1e9, *rng.normal(size=200)])  # a window has to be full
    assert (
        spikes.limit() == pytest.approx(np.mean(spikes.values) + 6 * np.std(spikes.values))
        and len(spikes.values) == 128
    )
    assert spikes.is_spike(20) and spikes.is_spike(20) and not spikes.is_spike(-20)


def test_spikes_are_skipped(monkeypatch):
    monkeypatch.setattr('mmebm.engine.faulty_steps.spikes.WINDOW', 8)
    _, states = train(epochs=3, hooks=[Faults({1: {3: 1e4}, 2: {3: 1e4}})], spike_sigmas=20, max_captures=1)
    skipped = [i for i, pair in enumerate(zip(states.before, states.after, strict=True)) if equal(*pair)]
    assert skipped == [BATCHES + 3, 2 * BATCHES + 3]
    assert 'standard deviations above the mean of the last' in log()
    assert len([*Path('out/captures').glob('*.pth')]) == 1
    (values, _) = torch.load('out/epoch_3.pth', weights_only=False)['non_finite_loss_hook']
    assert len(values) == 8 and max(values) < 100


def test_spikes_of_accumulated_gradients_are_those_of_whole_steps(monkeypatch):
    """The norm after the first of two batches is half of a step's, and would widen the window."""
    monkeypatch.setattr('mmebm.engine.faulty_steps.spikes.WINDOW', 2)
    norms = []
    monkeypatch.setattr(Spikes, 'is_spike', lambda self, value: norms.append(value) or False)
    train(spike_sigmas=20, wrapper=dict(accumulative_counts=2))
    assert len(norms) == BATCHES + BATCHES // 2  # each loss, and the norm of each step


class SetsWeights(Hook):
    """Before the first step, as ``PatchWhiteningHook`` does."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            runner.model.layer.weight.data.fill_(7)


def test_a_skipped_first_step_leaves_what_hooks_have_set(monkeypatch):
    monkeypatch.setattr(Model, '_is_first_batch', True, raising=False)  # as of mmebm's models
    runner, _ = train({0: NAN}, hooks=[SetsWeights()], wrapper=dict(optimizer=dict(type='SGD', lr=0)))
    assert runner.model.layer.weight.tolist() == [[7, 7]]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(max_in_a_row=0), 'max_in_a_row must be a whole number of at least 1, not 0'),
        (dict(then='retry'), "then must be 'stop' or 'roll_back', not 'retry'"),
        (dict(max_captures=None), 'max_captures must be a whole number of at least 0, not None'),
        (dict(lr_factor=0), 'lr_factor must be above 0 and at most 1, not 0'),
        (dict(spike_sigmas=-1), 'spike_sigmas must be a positive number or None, not -1'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteLossHook(**options)


def test_averages_are_not_rolled_back():
    with pytest.raises(ValueError, match=r"then='roll_back' would leave the averages of EMAHook"):
        train(then='roll_back', hooks=[EMAHook()])


def test_a_capture_is_run_again(capsys):
    train({2: NAN})
    capture = read_capture('out/captures/iter_3_rank_0.pth')
    assert capture['files'] == ['images/4.jpg', 'images/5.jpg'] and capture['place'] == dict(
        epoch=1, iteration=3, rank=0
    )
    assert all(value.isfinite().all() for value in capture['state_dict'].values())
    lines = replayed(capsys, 'out/captures/iter_3_rank_0.pth')
    assert lines['in training'] == 'the loss is nan (iteration 3, rank 0)' and lines['now'] == 'not finite'
    assert 'loss = nan' in lines['losses'] and lines['inputs that are not finite'] == 'inputs.1'
    assert lines['first module with such an output'] == 'norm (BatchNorm1d)'


def test_the_same_step_is_run_again(capsys, monkeypatch):
    """Its random numbers too: the loss of a spike is the same."""
    monkeypatch.setattr('mmebm.engine.faulty_steps.spikes.WINDOW', 8)
    train(epochs=2, hooks=[Faults({1: {3: 1e4}})], spike_sigmas=20)
    lines = replayed(capsys, 'out/captures/iter_10_rank_0.pth')
    loss = read_capture('out/captures/iter_10_rank_0.pth')['losses']['loss']
    assert lines['now'] == 'finite' and f'loss = {loss:.6g}' in lines['losses'] and loss > 10


def test_a_file_that_is_no_capture(tmp_path, capsys):
    torch.save(dict(state_dict={}), 'a.pth')
    with pytest.raises(SystemExit):
        replay(['a.pth'])
    assert 'a.pth is no capture of a faulty step: it has no batch, config, random' in capsys.readouterr().err


def _train_as(rank, folder, port):
    os.chdir(folder)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    MODELS.module_dict['Model'] = Model
    torch.distributed.init_process_group('gloo')
    runner, states = train({2: NAN}, distributed=True)  # of an image with an odd number, which rank 1 reads
    weights = [[state[0]['module.layer.weight'] for state in part] for part in (states.before, states.after)]
    changed = [not equal(*pair) for pair in zip(*weights, strict=True)]
    torch.save(dict(changed=changed, weights=runner.model.module.layer.state_dict()), f'rank_{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_skip_alike(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    torch.multiprocessing.spawn(_train_as, (str(tmp_path), port), nprocs=2)
    first, second = (torch.load(f'rank_{rank}.pth') for rank in range(2))
    assert first['changed'] == second['changed'] == [True, False, True]
    assert equal(first['weights'], second['weights'])
    assert [path.name for path in Path('out/captures').iterdir()] == ['iter_2_rank_1.pth']
