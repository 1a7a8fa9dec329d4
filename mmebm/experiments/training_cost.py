"""Cost of a training step of a config: FLOPs, memory and time, on this machine and with its own data."""

import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice, pairwise
from typing import NamedTuple

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmebm.engine.hooks.cpu_time_hook import cpu_time
from mmebm.launch.machine import adapt_to_cpu
from mmebm.model_building import build_initialized
from mmebm.planning.config_facts import step_options
from mmebm.planning.step_cost import OpCounter


class Speed(NamedTuple):
    """How fast a training is.

    Attributes:
        images_per_second: By the median step.
        startup_seconds: What the first step takes beyond that: it starts the workers, and compiles.
    """

    images_per_second: float
    startup_seconds: float


def measure_cost(cfg: Config) -> dict:
    """Steps per epoch, GFLOPs per image, and the peak memory in MiB of the tensors that a step makes."""
    cfg = on_this_device(cfg)
    step_options(cfg).pop('compile', None)  # the arithmetic is the same, and only operators can be counted
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = next(iter(loader))
    step = training_step(cfg)
    step(batch)  # the first calibrates
    with OpCounter() as counter:
        step(batch)
    return dict(
        steps=len(loader),
        gflops_per_image=counter.flops / cfg.train_dataloader.batch_size / 1e9,
        peak_memory_mib=counter.peak / 2**20,
    )


def measure_speed(cfg: Config, rounds: int = 8, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Speed of ``rounds`` steps by a clock of seconds, loading of their data included."""
    cfg = on_this_device(cfg)
    step = training_step(cfg)
    ends = [clock()]
    for batch in islice(cycle(Runner.build_dataloader(cfg.train_dataloader, seed=0)), rounds):
        step(batch)
        ends.append(clock())
    first, *others = (end - start for start, end in pairwise(ends))
    usual = statistics.median(others)
    return Speed(cfg.train_dataloader.batch_size / usual, max(first - usual, 0.0))


def measure_cpu_speed(cfg: Config, rounds: int = 8) -> Speed:
    """See ``measure_speed``; in CPU seconds, of the loading of data as well."""
    cfg = Config(cfg.to_dict())
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)  # workers would be counted once they end
    cfg.train_dataloader.pop('prefetch_factor', None)
    return measure_speed(cfg, rounds, cpu_time)


def on_this_device(cfg: Config) -> Config:
    """A copy, in float32 where there is no GPU."""
    cfg = Config(cfg.to_dict())
    if get_device() == 'cpu':
        adapt_to_cpu(cfg)
    return cfg


def training_step(cfg: Config) -> Callable[[dict], None]:
    """A function that does a training step on a batch, with the config's model and optimiser."""
    model = build_initialized(cfg)
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def step(batch: dict) -> None:
        losses = model.train_step(batch, wrapper)
        losses['loss'].item()  # waits for the device

    return step
