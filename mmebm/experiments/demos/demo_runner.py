"""What the demos of all methods share: a runner that leaves the terminal to them."""

import logging
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

import mmebm.upstream.quiet_imports  # noqa: F401  (before the runner imports mmpretrain's data sets)
from mmebm.launch.terminal import concise_terminal
from mmebm.visualization.figures import scalars


class DemoRunner(Runner):
    """mmengine's runner, whose log goes to its file alone where it would scroll the demo off a terminal."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Mmengine's logger; on a terminal it prints errors only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if sys.stdout.isatty() and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger

    @property
    def log_file(self) -> Path:
        """Where the log is."""
        return Path(self.log_dir, f'{self.timestamp}.log')


def make_runner(cfg: Config, work_dir: Path, seed: int) -> DemoRunner:
    """The runner of a config, and where its log is.

    Args:
        cfg: The config; it is changed.
        work_dir: For log and checkpoints.
        seed: Of initial weights, order of the images and corruptions.
    """
    cfg.work_dir = str(work_dir)
    cfg.randomness.seed = seed
    with concise_terminal():
        runner = DemoRunner.from_cfg(cfg)
    print(f'The log is {runner.log_file}', flush=True)
    return runner


def frozen_accuracies(runner: Runner) -> dict[str, float]:
    """Top-1 of the frozen features, in percent, by the runner's ``FrozenFeatureHook``: before and after training."""
    accuracies = {}
    for name in ('knn_top1', 'linear_top1'):
        values = scalars(runner.message_hub, f'frozen/{name}')
        accuracies |= {name: round(float(values[-1]), 2), f'{name}_random_init': round(float(values[0]), 2)}
    return accuracies
