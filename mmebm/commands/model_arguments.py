"""Flags by which commands name a trained model."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.launch.command_line import path


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``make_restorer`` reads."""
    add = parser.add_argument
    add('--checkpoint', type=path, required=True, metavar='FILE', help='of a pretraining')
    add('--config', help="that it was trained with, a path or the name of one of mmebm's "
        '(default: the one that the checkpoint names)')  # fmt: skip
    add('--device', help='such as cuda:1 (default: a GPU if there is one)')
    add('--batch-size', type=int, default=32, metavar='N', help='images in a batch (default: %(default)s)')


def make_restorer(args: argparse.Namespace) -> Any:
    """The ``Restorer`` of a command line."""
    from mmebm.apis import Restorer

    MMLogger.get_current_instance().setLevel('WARNING')  # mmengine logs each weight that it loads
    check_device(args.device)
    model, checkpoint = (args.config, args.checkpoint) if args.config else (args.checkpoint, None)
    return Restorer(model, checkpoint, args.device, args.batch_size)


def check_device(name: str | None) -> None:
    """Check that there is such a device here.

    Raises:
        ValueError: There is none.
    """
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f'--device {name}: {str(error).partition(".")[0]}') from error


def config_of(name: str) -> Config:
    """The config at a path, or of a name."""
    from mmebm.apis.loading import find_any_config

    return find_any_config(name)


def run_or_exit(parser: argparse.ArgumentParser, run: Callable[[], None]) -> None:
    """Run a command; what is wrong with its input ends it with one line instead of a traceback."""
    try:
        run()
    except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
