import gc
import io
import logging
import re
import sys
import uuid

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

EPOCHS, BATCHES = 2, 3


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Images(Dataset):
    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, idx):
        return {'inputs': torch.ones(2)}


class _Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layer(torch.stack(inputs)).sum() * 0 + 0.125}


class _Fail(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise KeyboardInterrupt


def _train(work_dir, monkeypatch, stream, hooks=({'type': 'mmebm.ProgressHook'},)):
    monkeypatch.setattr('mmebm.engine.hooks.progress_hook.REFRESH_SECONDS', 0)
    for name, value in {'TERM': 'xterm', 'COLUMNS': '100', 'LINES': '30'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, 'stdout', stream)
    runner = Runner(
        model=_Model(),
        work_dir=str(work_dir),
        train_dataloader={
            'batch_size': 4,
            'num_workers': 0,
            'dataset': _Images(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        train_cfg={'by_epoch': True, 'max_epochs': EPOCHS},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        custom_hooks=list(hooks),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
    )
    runner.train()
    return runner


def _screen(output):
    """What a terminal shows in the end: interprets the control sequences that rich uses, and no others."""
    output = re.sub(r'\x1b\[[0-9;]*m|\x1b\[\?25[lh]', '', output)  # colours, cursor
    lines, row = [''], 0
    for token in re.findall(r'\x1b\[[0-9]*[A-Za-z]|\r|\n|[^\x1b\r\n]+', output):
        if token == '\n':
            row += 1
            lines += [''] * (row + 1 - len(lines))
        elif token == '\x1b[1A':
            row -= 1
        elif token in ('\r', '\x1b[2K'):
            lines[row] = ''
        else:
            assert '\x1b' not in token
            lines[row] += token
    return lines


def test_the_bar_ends_full_and_the_log_lines_stay_whole(tmp_path, monkeypatch):
    terminal = _Terminal()
    runner = _train(tmp_path, monkeypatch, terminal)
    screen = _screen(terminal.getvalue())
    bars = [line for line in screen if 'images/s' in line]
    assert len(bars) == 1
    assert re.fullmatch(r'epoch 2 ━+ 6/6 loss 0.125 \d+ images/s 0:00:00\s*', bars[0])
    shown = ''.join(screen).replace(' ', '')
    for epoch in (1, 2):
        for batch in (1, 2, 3):
            assert f'Epoch(train)[{epoch}][{batch}/3]' in shown
    assert sys.stdout is terminal
    assert [h.stream for h in runner.logger.handlers if type(h) is logging.StreamHandler] == [terminal]


def test_nothing_is_added_to_a_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')  # which rich takes for a terminal
    pipe = io.StringIO()
    _train(tmp_path, monkeypatch, pipe)
    assert 'images/s' not in pipe.getvalue()
    assert 'Epoch(train)' in pipe.getvalue()


def test_a_failed_run_gives_the_terminal_back(tmp_path, monkeypatch):
    terminal = _Terminal()
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, monkeypatch, terminal, hooks=[{'type': 'mmebm.ProgressHook'}, _Fail()])
    gc.collect()  # the runner dies with its traceback, or with Python
    assert sys.stdout is terminal
    assert terminal.getvalue().rfind('\x1b[?25h') > terminal.getvalue().rfind('\x1b[?25l')  # the cursor is back


class _Skip(Hook):
    """Takes the loss away, as NonFiniteLossHook does from a skipped step."""

    priority = 'HIGHEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 0:
            outputs.clear()


def test_the_first_step_may_be_skipped(tmp_path, monkeypatch):
    terminal = _Terminal()
    _train(tmp_path, monkeypatch, terminal, hooks=[{'type': 'mmebm.ProgressHook'}, _Skip()])
    assert 'loss -' in terminal.getvalue() and 'loss 0.125' in terminal.getvalue()
