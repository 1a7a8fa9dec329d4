"""The plan of a pretraining run: arithmetic, memory, time and learning rate, before it is started.

Neither a GPU nor data is needed; where the data are, images are counted. Arithmetic and memory are counted on the
config's own model. Speed is derived from what benchmarks/step_time.py has measured on such a GPU, or else guessed from
the GPU's peak, and marked as a guess.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from mmebm.config_files import PACKAGE
from mmebm.planning.config_facts import (
    accumulated,
    autocast_type,
    base_batch_size,
    image_size,
    learning_rate,
    learning_rate_source,
    precision_name,
    step_options,
    total_batch,
)
from mmebm.planning.data_length import Length, length_of
from mmebm.planning.measured_speed import (
    Speed,
    compiled_memory_ratio,
    guessed_speed,
    measured_speed,
    measurements,
    variants_of,
)
from mmebm.planning.memory import Memory, available_memory, memory_of, ways_to_fit
from mmebm.planning.purpose import purpose
from mmebm.planning.step_cost import StepCost, step_cost

# Where benchmarks/step_time.py leaves what it has measured.
MEASUREMENTS = PACKAGE.parent / 'benchmarks' / 'results'

AS_GIVEN = 'as given'


@dataclass(frozen=True)
class Request:
    """What is planned for.

    Attributes:
        gpu: One of ``GPUS``, or ``cpu`` for this machine.
        gpus: How many devices, over all nodes.
        images: Of the training set; None: as many as its folder holds or its name tells.
        image_size: Height and width in pixels; None: as the config says.
        images_per_second: Of one device; None: as measured, or a guess.
        results: The folder with the measurements.
    """

    gpu: str
    gpus: int = 1
    images: int | None = None
    image_size: int | None = None
    images_per_second: float | None = None
    results: Path = MEASUREMENTS


def make_plan(name: str, cfg: Config, request: Request) -> tuple[dict, list[str]]:
    """The figures of a plan, and notes on them.

    Args:
        name: Of the config.
        cfg: The config, with the command line's options in it.
        request: What it is planned for.

    Raises:
        TypeError: The config's model is none of ours.
        FileNotFoundError: The folder of the training images is here, but holds none.
        ValueError: The config does not say how large the images are, or a number is not positive.
    """
    for name_of_flag, number in asdict(request).items():
        if isinstance(number, (int, float)) and number <= 0:
            raise ValueError(f'--{name_of_flag.replace("_", "-")} must be positive, not {number}')
    on_gpu = request.gpu != 'cpu'
    dtype = autocast_type(cfg) if on_gpu else torch.float32
    precision = precision_name(cfg, dtype, on_gpu)
    size = (request.image_size, request.image_size) if request.image_size else image_size(cfg)

    cost = step_cost(cfg, size, dtype, on_gpu)
    gflops = cost.flops_per_image / 1e9
    rows = measurements(request.results, on_gpu, precision)
    variants = variants_of(cfg)
    memory, is_measured = plan_memory(cfg, cost, rows, request.gpus, available_memory(request.gpu))
    speed = measured_speed(rows, request.gpu, precision, variants, gflops)
    speed = speed or guessed_speed(request.gpu, precision, gflops)
    if request.images_per_second is not None:
        speed = Speed(request.images_per_second, source=AS_GIVEN)
    length = Length(request.images, AS_GIVEN)
    if request.images is None:
        length = length_of(cfg.train_dataloader.dataset, cfg.get('default_scope'))

    plan = dict(
        config=name,
        purpose=purpose(cfg.model),
        device=request.gpu,
        devices=request.gpus,
        precision=precision,
        variant=variants[0],
        image_size=size,
        parameters=cost.parameters,
        trained_parameters=cost.trained,
        gflops_per_image=round(gflops, 2),
        memory_bytes=asdict(memory) | dict(peak=memory.peak, fits=memory.fits),
        batch_size=cfg.train_dataloader.batch_size,
        accumulative_counts=accumulated(cfg),
        total_batch=total_batch(cfg, request.gpus),
        learning_rate=learning_rate(cfg, request.gpus),
        learning_rate_source=learning_rate_source(cfg, request.gpus),
        images_per_second=speed and round(speed.images_per_second * request.gpus, 1),
        efficiency=speed and speed.efficiency and round(speed.efficiency, 3),
        speed_source=speed and speed.source,
        speed_is_guess=speed and speed.is_guess,
        images=length.images,
        images_source=length.source,
        hours=hours(cfg, length.images, speed, request.gpus),
    )
    return plan, notes_on_memory(cfg, memory, cost, request.gpus, is_measured) + notes_on(cfg, plan)


def plan_memory(cfg: Config, cost: StepCost, rows: Sequence[dict], gpus: int, available: int) -> tuple[Memory, bool]:
    """Peak memory on one of several devices, and whether it is known what compiling saves.

    Args:
        cfg: The config.
        cost: Of an eager step on a single device.
        rows: Measurements in the precision of the step.
        gpus: How many devices there are.
        available: Bytes of memory of the device.
    """
    ratio: float | None = 1.0
    if step_options(cfg).get('compile'):
        ratio = compiled_memory_ratio(rows, variants_of(cfg)[0], cost.flops_per_image / 1e9)
    return memory_of(cfg, cost, gpus, ratio or 1.0, available), ratio is not None


def notes_on_memory(cfg: Config, memory: Memory, cost: StepCost, gpus: int, is_measured: bool) -> list[str]:
    """What to change if a step does not fit, and whether the memory of the compiled step is known."""
    notes = [] if memory.fits else ways_to_fit(cfg, memory, gpus, cost.can_be_split)
    if not is_measured:
        notes.append('Memory: that of the eager step; with compile=True it has not been measured.')
    return notes


def notes_on(cfg: Config, plan: dict) -> list[str]:
    """What a plan leaves open, and what has to be set for it."""
    notes = []
    if plan['images_per_second'] is None or plan['speed_is_guess']:
        guess = ', and the hours are a guess' if plan['speed_is_guess'] and plan['hours'] is not None else ''
        notes.append(
            f'Speed: {plan["variant"]} in {plan["precision"]} has not been measured on {plan["device"]}{guess}: run '
            'python -m benchmarks.step_time there, or give --images-per-second.'
        )
    elif plan['speed_source'] != AS_GIVEN:
        notes.append('Speed: of the forward and backward passes; data, optimiser and communication come on top.')
    if plan['images'] is None and 'max_iters' not in cfg.train_cfg:
        notes.append(
            'Hours: the data are not here, and their name does not say how many images they have; give --images.'
        )
    lr = plan['learning_rate']
    if base_batch_size(cfg) is None:
        notes.append('Learning rate: as in the config, which has no auto_scale_lr.base_batch_size to scale it by.')
    elif lr is not None and not math.isclose(lr, cfg.optim_wrapper.optimizer.lr):
        notes.append(f'Learning rate: train with --cfg-options optim_wrapper.optimizer.lr={lr:g}')
    if base_batch_size(cfg) is not None and accumulated(cfg) > 1:
        notes.append('Learning rate: not --auto-scale-lr, which leaves accumulative_counts out of the total batch.')
    return notes


def hours(cfg: Config, images: int | None, speed: Speed | None, gpus: int) -> float | None:
    """Of the whole training; None if images or speed are not known."""
    if speed is None:
        return None
    if 'max_iters' in cfg.train_cfg:
        images_seen = cfg.train_cfg.max_iters * gpus * cfg.train_dataloader.batch_size
    elif images is not None:
        images_seen = cfg.train_cfg.max_epochs * images
    else:
        return None
    return round(images_seen / (speed.images_per_second * gpus) / 3600, 2)
