"""A training of seconds, in processes that are forked from one that has imported everything, to be disturbed."""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.output import REPOSITORY
from mmebm.commands.train import main
from mmebm.report.run import json_lines

EPOCHS, IMAGES, BATCH = 3, 32, 4
ITERATIONS = EPOCHS * IMAGES // BATCH

CONFIG = f"""
_base_ = '{REPOSITORY}/configs/ebm_vit-t_shapes.py'
model = dict(
    backbone=dict(
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32), drop_rate=0.1
    ),
    head=dict(in_channels=16),
)
train_dataloader = dict(batch_size={BATCH}, dataset=dict(size={IMAGES}))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs={EPOCHS})
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, end={EPOCHS}, convert_to_iter_based=True)]
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=5, max_keep_ckpts=2))
custom_hooks = [dict(type='mmebm.EpochSeedHook'), dict(type='mmebm.NonFiniteLossHook')]
"""


class Trial:
    """Trainings of one config in one folder.

    Args:
        folder: Where the config is, and what the processes print.
        config: Its text.
        work_dir: Where they write; by default a folder in ``folder``.
    """

    def __init__(self, folder: Path, config: str = CONFIG, work_dir: Path | None = None):
        self.folder, self.work_dir = folder, work_dir or folder / 'run'
        self.config = folder / 'config.py'
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config)

    def start(
        self, options: Sequence[str] = (), processes: int = 1, before: Callable[[int], None] | None = None
    ) -> list[int]:
        """Start or resume the training; returns the processes' ids.

        Args:
            options: For ``--cfg-options``.
            processes: How many, connected by gloo.
            before: Called in each process with its rank, before it trains.
        """
        port = _free_port()
        arguments = [str(self.config), '--work-dir', str(self.work_dir)]
        arguments += ['--launcher', 'pytorch'] if processes > 1 else []
        arguments += ['--cfg-options', f'experiment_name=run{time.monotonic_ns()}', *options, '--resume']
        pids = []
        for rank in range(processes):
            pid = os.fork()
            if pid == 0:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                    MASTER_PORT=str(port),
                )  # fmt: skip
                _train(arguments, self.folder / f'output_{rank}.txt', rank, before)
            pids.append(pid)
        return pids

    def finish(self, *args, **kwargs) -> None:
        """Train to the end, from the last checkpoint; raises RuntimeError if a process fails."""
        codes = [exit_code(pid) for pid in self.start(*args, **kwargs)]
        if any(codes):
            raise RuntimeError(f'Exit codes {codes}: {self.output()[-3000:]}')

    def output(self) -> str:
        """What the last processes have printed."""
        return ''.join(path.read_text() for path in sorted(self.folder.glob('output_*.txt')))

    def final(self) -> dict[str, torch.Tensor]:
        """Weights and moments at the end of the training, by name."""
        checkpoint = torch.load(self.work_dir / f'iter_{ITERATIONS}.pth', weights_only=False)
        moments = checkpoint['optimizer']['state']
        return checkpoint['state_dict'] | {f'{i}.{k}': v for i, one in moments.items() for k, v in one.items()}

    def steps(self) -> int:
        """The number of iterations that were finished, as the log of the run says that went furthest."""
        rows = [row for path in self.work_dir.glob('*/vis_data/scalars.json') for row in json_lines(path)]
        return max((row.get('step', 0) for row in rows if 'loss' in row), default=0)

    def saved_iteration(self) -> int:
        """The iteration of the checkpoint that the run would resume from; 0 without one."""
        last = self.work_dir / 'last_checkpoint'
        if not last.is_file():
            return 0
        return torch.load(last.read_text(), weights_only=False, mmap=True)['meta']['iter']

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints in the folder."""
        return sorted(path.name for path in self.work_dir.glob('*.pth'))


def exit_code(pid: int, timeout: float | None = None) -> int | None:
    """Wait for a process; its exit code, negative for a signal; None if it has not ended in time."""
    end = None if timeout is None else time.monotonic() + timeout
    while end is None or time.monotonic() < end:
        done, status = os.waitpid(pid, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def bitwise_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors have the same bits."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _train(arguments: list[str], output: Path, rank: int, before: Callable[[int], None] | None) -> None:
    """Train in this forked process, and leave it."""
    code = 1
    try:
        with output.open('w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        without_reports()
        torch.set_num_threads(1)
        if before is not None:
            before(rank)
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def without_reports() -> None:
    """A runner reports its environment, and formats its config for each checkpoint: longer than this training."""
    import mmengine.runner.runner as runner
    import yapf.yapflib.yapf_api as yapf

    runner.collect_env = dict
    yapf.FormatCode = lambda text, **kwargs: (text, False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]
