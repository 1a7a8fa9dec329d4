"""Checks that a step of pretraining fits into the memory, before a machine runs out of it."""

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger

from mmebm.model_building import build, complete_model_config, model_class
from mmebm.models.selfsup.base import BaseRestorer
from mmebm.planning.config_facts import autocast_type, image_size, precision_name
from mmebm.planning.measured_speed import measurements
from mmebm.planning.memory import Memory, available_memory, ways_to_fit
from mmebm.planning.plan import MEASUREMENTS, plan_memory
from mmebm.planning.step_cost import StepCost, step_cost


def check_memory(cfg: Config) -> None:
    """Check the estimated memory of a training step; other models than ours are not estimated.

    A CPU that is out of memory ends the process, or another one, without a message; a GPU says so in the first step.

    Raises:
        ValueError: A step needs more than all memory of this machine; lists what to change.

    Warns:
        UserWarning: A step fits on the CPU with hardly anything beside it, or probably not on the GPU; or its memory
            cannot be estimated.
    """
    model = model_class(cfg)
    device = get_device()
    is_ours = inspect.isclass(model) and issubclass(model, BaseRestorer)
    if not is_ours or device not in ('cpu', 'cuda') or int(os.environ.get('LOCAL_RANK', 0)) > 0:
        return
    try:
        with quietly():
            memory, cost = estimate(cfg, on_gpu=device == 'cuda')
    except Exception as error:  # any that a model of the user's raises on tensors without values
        if not builds(cfg):
            return  # the run will say what is wrong
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f'Whether a training step fits into the memory could not be estimated: {reason}', stacklevel=2)
        return
    if memory.fits:
        return
    message = '\n'.join(ways_to_fit(cfg, memory, processes('WORLD_SIZE'), cost.can_be_split))
    message = f'Memory of a training step on this machine ({device}). {message}'
    if device == 'cpu' and memory.peak > memory.available:
        raise ValueError(message)
    warnings.warn(message, stacklevel=2)


def estimate(cfg: Config, on_gpu: bool) -> tuple[Memory, StepCost]:
    """Memory of a training step on this machine's device, and cost; the processes here share the memory of a CPU."""
    dtype = autocast_type(cfg) if on_gpu else torch.float32
    if on_gpu:
        available = torch.cuda.get_device_properties(0).total_memory
    else:
        available = available_memory('cpu') // processes('LOCAL_WORLD_SIZE')
    cost = step_cost(cfg, image_size(cfg), dtype, on_gpu)
    rows = measurements(MEASUREMENTS, on_gpu, precision_name(cfg, dtype, on_gpu))
    return plan_memory(cfg, cost, rows, processes('WORLD_SIZE'), available)[0], cost


def builds(cfg: Config) -> bool:
    """Whether the model can be built."""
    try:
        with quietly():
            build(complete_model_config(cfg), cfg.get('default_scope'))
    except Exception:  # any that a model of the user's raises on wrong options
        return False
    return True


def processes(variable: str) -> int:
    """How many there are by a variable of torch's launcher."""
    return int(os.environ.get(variable, 1))


@contextmanager
def quietly() -> Iterator[None]:
    """Context without warnings and messages on a model that is built, since the run builds it again."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
