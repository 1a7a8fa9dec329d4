"""What a training shows on the terminal, what it leaves to its log file, and how it ends when it is interrupted."""

import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm import commands
from mmebm.launch import terminal
from mmebm.launch.machine import adapt_to_cpu
from mmebm.upstream.quiet_imports import import_quietly

ROOT = Path(__file__).parents[2]
CONFIG = f"""
_base_ = {str(ROOT / 'configs' / 'ebm_vit-t_shapes.py')!r}
train_dataloader = dict(batch_size=4, dataset=dict(size=8))
for held_out_set in _base_.val_dataloader.dataset.datasets:
    held_out_set.size = 2
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0)
train_cfg = dict(max_epochs=1000)
custom_hooks = _base_.custom_hooks[:4]
"""


@pytest.fixture(scope='module')
def interrupted(tmp_path_factory):
    """The output, exit status and log of a training that gets Ctrl-C after its first epochs."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'tiny.py').write_text(CONFIG)
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(folder / 'tiny.py'), '--work-dir', str(folder / 'out')]
    environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1')
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored in what a shell runs behind `&`
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if 'Epoch(val) [2]' in line:
                process.send_signal(signal.SIGINT)
                break
        lines += process.communicate(timeout=120)[0].splitlines(keepends=True)
    finally:
        process.kill()
    (log,) = (folder / 'out').glob('*/*.log')
    return ''.join(lines), process.returncode, log.read_text()


@pytest.mark.slow
def test_little_is_shown_before_the_first_epoch(interrupted):
    before, _, _ = interrupted[0].partition('Epoch(train)')
    assert len(before.splitlines()) <= 8
    assert 'Environment, config and all messages are in ' in before
    for text in ('OneDL', 'pin_memory', 'FileClient', 'MultiScaleDeformableAttention'):
        assert text not in interrupted[0]


@pytest.mark.slow
def test_the_log_file_has_everything(interrupted):
    for text in ('System environment', 'Config:\n', 'Hooks will be executed', 'paramwise_options', 'Exp name'):
        assert text in interrupted[2]
        assert text not in interrupted[0]


@pytest.mark.slow
def test_a_validation_is_a_table(interrupted):
    lines = interrupted[0].splitlines()
    start = next(i for i, line in enumerate(lines) if 'Epoch(val) [1]' in line)
    assert lines[start + 1].split() == ['color', 'denoise', 'mask', 'sort', 'sr']
    assert max(map(len, lines[start + 1 : start + 12])) <= 80


@pytest.mark.slow
def test_an_interrupted_training_ends_with_one_line(interrupted):
    shown, status, _ = interrupted
    assert status == -signal.SIGINT
    assert 'Traceback' not in shown
    last = shown.splitlines()[-1]
    assert last.startswith('Interrupted. ') and last.endswith('.pth is the last checkpoint; --resume continues from it')


def test_only_loggers_with_a_file_are_concise(tmp_path, capsys):
    with terminal.concise_terminal():
        to_file = MMLogger('concise', log_file=str(tmp_path / 'a.log'))
        alone = MMLogger('alone')
    for logger in (to_file, alone, MMLogger('usual', log_file=str(tmp_path / 'b.log'))):
        logger.info('paramwise_options -- head.bias:weight_decay=0.0')
        logger.info('Epoch(train) [1][4/4]')
    shown = capsys.readouterr().out
    assert shown.count('paramwise_options') == 2 and shown.count('Epoch(train)') == 3
    assert f'Environment, config and all messages are in {tmp_path / "a.log"}' in shown
    assert 'paramwise_options' in (tmp_path / 'a.log').read_text()


@pytest.mark.parametrize(
    'message, is_shown',
    [
        ('\n-----\nSystem environment:\n    sys.platform: linux', False),
        ('Hooks will be executed in the following order:\nbefore_run:', False),
        ('backbone.pos_embed is skipped since its requires_grad=False', False),
        ('resumed epoch: 3, iter: 12', True),
        ('Load checkpoint from a.pth', True),
        ('The model and loaded state dict do not match exactly', True),
    ],
)
def test_what_is_for_the_terminal(message, is_shown):
    record = logging.LogRecord('mmengine', logging.INFO, __file__, 1, message, None, None)
    assert terminal.is_for_terminal(record) == is_shown


def test_other_errors_keep_their_traceback(capsys):
    commands.report_uncaught(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == 'Interrupted.\n'
    commands.report_uncaught(ValueError, ValueError('wrong'), None)
    assert capsys.readouterr().err == 'ValueError: wrong\n'


def test_imports_are_quiet_and_leave_missing_packages_to_others(tmp_path, monkeypatch, capsys):
    (tmp_path / 'noisy_module.py').write_text("import warnings\nprint('noise')\nwarnings.warn('noise')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_quietly('noisy_module', 'absent_module')
    assert 'noisy_module' in sys.modules and capsys.readouterr() == ('', '')


def test_without_a_gpu_no_memory_is_pinned():
    cfg = Config(dict(train_dataloader=dict(pin_memory=True), val_dataloader=None, test_dataloader=dict(a=1)))
    adapt_to_cpu(cfg)
    assert cfg.to_dict() == dict(train_dataloader=dict(), val_dataloader=None, test_dataloader=dict(a=1))


@pytest.mark.slow
def test_an_interrupted_process_ends_by_the_signal_whatever_runs_at_exit():
    code = "import atexit, mmebm.commands; atexit.register(lambda: exec('0', {})); raise KeyboardInterrupt('Go on.')"
    done = subprocess.run([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.splitlines()[-1] == 'Interrupted. Go on.'
