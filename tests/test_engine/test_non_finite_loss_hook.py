import uuid

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

HOOKS = ({'type': 'mmebm.NonFiniteLossHook', 'max_in_a_row': 1},)
BATCHES = 3  # an epoch, of two images each


class _Images(Dataset):
    def __init__(self, with_path):
        self.with_path = with_path

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, idx):
        metainfo = {'img_path': f'images/{idx}.jpg'} if self.with_path else {}
        return {'inputs': torch.ones(2), 'data_samples': BaseDataElement(metainfo=metainfo)}


class _Model(BaseModel):
    """One of its two losses becomes ``value`` in iteration ``fail_at``, counted from 1, and the weights with it.

    Where ``value`` is a string, the losses stay finite, and the gradient becomes what it says.
    """

    def __init__(self, fail_at, value):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.fail_at = fail_at
        self.value = value
        self.calls = 0

    def forward(self, inputs, data_samples, mode='loss'):
        self.calls += 1
        loss = self.layer(torch.stack(inputs)).square().mean()
        other, fails = loss.detach(), self.calls == self.fail_at
        if fails and isinstance(self.value, str):
            loss.register_hook(lambda gradient: gradient * float(self.value))
        elif fails:
            loss = loss * self.value
        return {'loss_restore': loss, 'loss_other': other}


def _train(work_dir, monkeypatch, fail_at, value=float('nan'), with_path=True, hooks=HOOKS, **checkpoint):
    runner = Runner(
        model=_Model(fail_at, value),
        work_dir=str(work_dir),
        train_dataloader={
            'batch_size': 2,
            'num_workers': 0,
            'dataset': _Images(with_path),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        train_cfg={'by_epoch': True, 'max_epochs': 4},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': True} | checkpoint,
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        custom_hooks=list(hooks),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
    )
    runner.train()
    return runner


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_the_message_says_what_where_and_what_to_do(tmp_path, monkeypatch, value):
    with pytest.raises(FloatingPointError) as caught:
        _train(tmp_path, monkeypatch, fail_at=2 * BATCHES + 3, value=value)
    what, images, checkpoint, advice = str(caught.value).split('\n')
    assert what == f'The loss is not finite: loss = {value}, loss_restore = {value} in epoch 3, iteration 9.'
    assert images.startswith('Images of the batch: images/4.jpg, images/5.jpg. To run it again: tools/replay.py ')
    assert checkpoint == f'Last checkpoint: {tmp_path}/epoch_2.pth.'
    for remedy in ('learning rate', 'step_size', 'clip_grad', 'bfloat16'):
        assert remedy in advice


def _checkpoints(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth'))


def _weights(path):
    return torch.load(path, weights_only=False)['state_dict']['layer.weight']


@pytest.mark.parametrize('iteration', [1, BATCHES])  # in the last one CheckpointHook and LoggerHook act too
def test_nothing_broken_is_written(tmp_path, monkeypatch, iteration):
    with pytest.raises(FloatingPointError):
        _train(tmp_path, monkeypatch, fail_at=2 * BATCHES + iteration)
    assert _checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')
    assert _weights(tmp_path / 'epoch_2.pth').isfinite().all()
    [log] = tmp_path.glob('*/*.log')
    assert 'loss: nan' not in log.read_text()


def test_without_the_hook_broken_weights_are_written(tmp_path, monkeypatch):
    _train(tmp_path, monkeypatch, fail_at=2 * BATCHES + 1, hooks=())
    assert _checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth']
    assert _weights(tmp_path / 'epoch_4.pth').isnan().all()


@pytest.mark.parametrize(
    'name, checkpoint', [('epoch_2', {'by_epoch': True}), ('iter_6', {'by_epoch': False, 'interval': BATCHES})]
)
def test_broken_weights_do_not_replace_a_sound_checkpoint(tmp_path, monkeypatch, name, checkpoint):
    with pytest.raises(
        FloatingPointError,
        match=rf'(?s)The norm of gradients is nan in epoch 3, iteration 9\.\n.*Last checkpoint: .*{name}\.pth',
    ):
        _train(tmp_path, monkeypatch, fail_at=3 * BATCHES, value='nan', max_keep_ckpts=1, **checkpoint)
    assert _checkpoints(tmp_path) == [f'{name}.pth']
    assert _weights(tmp_path / f'{name}.pth').isfinite().all()


def test_finite_losses_pass(tmp_path, monkeypatch):
    assert _train(tmp_path, monkeypatch, fail_at=0).iter == 4 * BATCHES


def test_before_the_first_checkpoint_and_without_paths(tmp_path, monkeypatch):
    with pytest.raises(FloatingPointError, match=r'not known[^\n]*\nLast checkpoint: none written yet'):
        _train(tmp_path, monkeypatch, fail_at=1, with_path=False)
