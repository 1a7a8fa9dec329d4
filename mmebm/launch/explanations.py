"""Says of errors of other packages which part of a config they come from, and of full memory what to lower."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from mmengine.config import Config

from mmebm.config_tree import nested_dicts
from mmebm.launch.checks.memory import estimate, processes
from mmebm.launch.options import RUNNER_KEYS
from mmebm.planning.memory import ways_to_fit

PACKAGE = Path(__file__).resolve().parents[1]

# Errors that stay of their class when their message is completed.
KEPT = (
    *(AssertionError, AttributeError, FileNotFoundError, IndexError, KeyError, RuntimeError, TypeError),
    *(OverflowError, ZeroDivisionError),
)

# Errors by which code answers to values that it did not expect.
OF_VALUES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)

# Functions of which one is running once images or the network are.
RUNNING = {'run_iter', 'run_epoch', 'prepare_data', '_next_data', '_call_impl'}

# Errors of processes that do not reach each other.
NOT_MET = (torch.distributed.DistNetworkError, torch.distributed.DistStoreError)

# How PyTorch says that a CPU's memory is full.
CPU_FULL = "can't allocate memory"


@contextmanager
def explained(configs: list[Config]) -> Iterator[None]:
    """Context in which errors that are not of mmebm name the part of a config that they come from.

    Args:
        configs: The config of the run, once it is known.

    Raises:
        MemoryError: The memory is full; the message lists what to lower.
        RuntimeError: The processes of the training do not reach each other.
        ValueError: A part of the config cannot be built; names its key and type. Or, before the first batch, something
            else fails; names the config and the functions. Or an error of ``KEPT``.
    """
    try:
        yield
    except Exception as error:
        config = configs[-1] if configs else None
        if config is not None and _is_out_of_memory(error):
            raise MemoryError(f'{_first_line(error)}\n{_what_to_lower(config)}') from error
        if isinstance(error, NOT_MET):
            raise RuntimeError(f'{_first_line(error)}\n{_who_is_missing()}') from error
        part = _built(error.__traceback__)
        if config is None or _is_ours(error) or part is None and not _is_at_start(error):
            raise
        kind = type(error) if type(error) in KEPT else ValueError
        what = 'A value has the wrong type or range, or a key is missing' if part is None else (
            f'{_key_of(part, config)} cannot be built'
        )  # fmt: skip
        raise kind(
            f'{what}: {type(error).__name__}: {str(error).rstrip(".")}{_met_in(error) if part is None else ""}. '
            f'Correct it in {config.filename}, or by --cfg-options'
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or CPU_FULL in str(error)


def _what_to_lower(config: Config) -> str:
    """The options that make a step fit, as ``tools/plan.py`` knows them, or where to look for them."""
    try:
        memory, cost = estimate(config, on_gpu=torch.cuda.is_available())
        # What is full needs no less than there is, whatever was estimated.
        memory = replace(memory, step=max(memory.step, memory.available)) if memory.fits else memory
        return '\n'.join(ways_to_fit(config, memory, processes('WORLD_SIZE'), cost.can_be_split))
    except Exception:  # of models that cannot be estimated
        return (
            'Lower train_dataloader.batch_size and raise optim_wrapper.accumulative_counts by the same factor; '
            f'`python tools/plan.py {config.filename} --gpus N --gpu KIND` estimates what fits'
        )


def _who_is_missing() -> str:
    """What it means that processes do not reach each other, and what to do."""
    rank, number, host, port = (os.environ.get(key) for key in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'))
    return (
        f'Rank {rank} of {number} does not reach the others by {host}:{port}: one has ended, whose output says why, or '
        'was not started, or was given another address. Start all again, with --resume if the training had begun. At '
        'the start they wait for each other for env_cfg.dist_cfg.timeout seconds, 1800 by default'
    )


def _is_ours(error: Exception) -> bool:
    """Whether mmebm raised it on purpose, and so says what to do."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).is_relative_to(PACKAGE) and (frame.line or '').startswith('raise')


def _is_at_start(error: Exception) -> bool:
    """Whether neither images nor the network run yet, so that an error of these kinds comes from the config."""
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    return isinstance(error, OF_VALUES) and not names & RUNNING


def _met_in(error: Exception) -> str:
    """The functions that were called last, whose names tell what they were about."""
    frames = traceback.extract_tb(error.__traceback__)[-2:]
    return f' (in {" -> ".join(frame.name for frame in frames)} of {Path(frames[-1].filename).name})'


def _built(trace: TracebackType | None) -> dict[str, Any] | None:
    """The innermost part of a config that was being built when an error was raised."""
    part = None
    while trace:
        frame = trace.tb_frame
        if frame.f_code.co_name == 'build_from_cfg' and isinstance(frame.f_locals.get('cfg'), dict):
            part = frame.f_locals['cfg']
        trace = trace.tb_next
    return part


def _key_of(part: dict[str, Any], config: Config) -> str:
    kind = part.get('type')
    places = [place for place, node in nested_dicts(config.to_dict()) if node.get('type') == kind and place]
    places = [place for place in places if place.partition('.')[0] in RUNNER_KEYS] or places  # not variables
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', repr(kind))
    exact = [place for place in places if _same_keys(place, part, config)] or places
    return f'{" or ".join(exact[:2])} (type={name!r})' if exact else f'A part of the config of type={name!r}'


def _same_keys(place: str, part: dict[str, Any], config: Config) -> bool:
    node = dict(nested_dicts(config.to_dict())).get(place, {})
    return {*node} - {'_scope_'} == {*part} - {'_scope_'}


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip('.')
