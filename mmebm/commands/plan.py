"""``mmebm-plan``: what a pretraining run will need, before it is started: arithmetic, memory, time, learning rate.

Neither a GPU nor data is needed. Arithmetic and memory are counted on the config's own model; speed is derived from
what benchmarks/step_time.py has measured on such a GPU, or else not given.
"""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmebm.config_files import PACKAGE
from mmebm.launch.options import find_config, merge_options
from mmebm.planning.config_facts import (
    accumulated,
    autocast_type,
    base_batch_size,
    image_size,
    known_length,
    learning_rate,
    precision_name,
    total_batch,
)
from mmebm.planning.gpus import GPUS
from mmebm.planning.measured_speed import (
    Speed,
    compiled_memory_ratio,
    measured_speed,
    measurements,
    variants_of,
)
from mmebm.planning.step_cost import StepCost, is_sharded, step_cost

GIB = 2**30


# Part of the memory that tensors can have: the rest is for the driver, libraries, communication and fragmentation.
USABLE_MEMORY = 0.9

AS_GIVEN = 'as given'


@dataclass(frozen=True)
class Memory:
    """Peak memory of one device, in bytes, and what it is made of.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of the parameters.
        optimizer_states: Those on this device.
        ddp_buckets: The copies of the gradients that DistributedDataParallel communicates.
        step: What a step needs on top: images, activations, temporaries.
        available: Of the device.
    """

    weights: int
    gradients: int
    optimizer_states: int
    ddp_buckets: int
    step: int
    available: int

    @property
    def standing(self) -> int:
        """All that does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer_states + self.ddp_buckets

    @property
    def peak(self) -> int:
        """The sum of the parts."""
        return self.standing + self.step

    @property
    def fits(self) -> bool:
        """Whether there is enough, with something to spare."""
        return self.peak <= USABLE_MEMORY * self.available


def main(argv: Sequence[str] | None = None) -> None:
    """Plan a run; ``--help`` lists the flags."""
    parser = _parser()
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('WARNING')  # mmengine tells of each parameter's weight decay
    try:
        plan, notes = make_plan(args)
    except (FileNotFoundError, TypeError, ValueError) as error:
        parser.error(str(error))
    print_plan(plan, notes)
    if args.json:
        args.json.write_text(json.dumps(plan | dict(notes=notes), indent=2) + '\n')


def make_plan(args: argparse.Namespace) -> tuple[dict, list[str]]:
    """The figures of a plan, and what to say about them.

    Raises:
        FileNotFoundError: There is no such config.
        TypeError: The config's model is none of ours.
        ValueError: The config does not say how large the images are, or how many GPUs there are makes no sense.
    """
    if args.gpus < 1:
        raise ValueError(f'--gpus must be at least 1, not {args.gpus}')
    cfg = load_config(args.config, args.cfg_options or {})
    on_gpu = args.gpu != 'cpu'
    dtype = autocast_type(cfg) if on_gpu else torch.float32
    precision = precision_name(cfg, dtype, on_gpu)
    size = image_size(cfg) if args.image_size is None else (args.image_size, args.image_size)

    cost = step_cost(cfg, size, dtype, on_gpu)
    gflops = cost.flops_per_image / 1e9
    rows = measurements(args.results, on_gpu, precision)
    variants = variants_of(cfg)
    ratio = compiled_memory_ratio(rows, variants[0], gflops) if cfg.model.get('compile') else 1.0
    memory = memory_of(cfg, cost, args.gpus, ratio or 1.0, available_memory(args.gpu))
    speed = measured_speed(rows, args.gpu, precision, variants, gflops)
    if args.images_per_second is not None:
        speed = Speed(args.images_per_second, source=AS_GIVEN)
    images = args.images or known_length(cfg)

    plan = dict(
        config=str(args.config),
        device=args.gpu,
        devices=args.gpus,
        precision=precision,
        variant=variants[0],
        image_size=size,
        parameters=cost.parameters,
        trained_parameters=cost.trained,
        gflops_per_image=round(gflops, 2),
        memory_bytes=asdict(memory) | dict(peak=memory.peak, fits=memory.fits),
        batch_size=cfg.train_dataloader.batch_size,
        accumulative_counts=accumulated(cfg),
        total_batch=total_batch(cfg, args.gpus),
        learning_rate=learning_rate(cfg, args.gpus),
        images_per_second=speed and round(speed.images_per_second * args.gpus, 1),
        efficiency=speed and speed.efficiency and round(speed.efficiency, 3),
        speed_source=speed and speed.source,
        images=images,
        hours=hours(cfg, images, speed, args.gpus),
    )
    notes = [] if memory.fits else ways_to_fit(cfg, memory, args.gpus, cost.can_be_split)
    if ratio is None:
        notes.append('Memory: that of the eager step; with compile=True it has not been measured.')
    return plan, notes + notes_on(cfg, plan)


def notes_on(cfg: Config, plan: dict) -> list[str]:
    """What a plan leaves open, and what has to be set for it."""
    notes = []
    if plan['images_per_second'] is None:
        notes.append(
            f'Speed: {plan["variant"]} in {plan["precision"]} has not been measured on {plan["device"]}: run '
            'benchmarks/step_time.py there, or give --images-per-second.'
        )
    elif plan['speed_source'] != AS_GIVEN:
        notes.append('Speed: of the forward and backward passes; data, optimiser and communication come on top.')
    if plan['images'] is None and 'max_iters' not in cfg.train_cfg:
        notes.append('Hours: the config does not say how many images there are; give --images.')
    lr = plan['learning_rate']
    if base_batch_size(cfg) is None:
        notes.append('Learning rate: as in the config, which has no auto_scale_lr.base_batch_size to scale it by.')
    elif lr is not None and not math.isclose(lr, cfg.optim_wrapper.optimizer.lr):
        notes.append(f'Learning rate: train with --cfg-options optim_wrapper.optimizer.lr={lr:g}')
    if base_batch_size(cfg) is not None and accumulated(cfg) > 1:
        notes.append('Learning rate: not --auto-scale-lr, which leaves accumulative_counts out of the total batch.')
    return notes


def load_config(name: str, options: dict) -> Config:
    """A config with the command line's options in it, as in training."""
    cfg = Config.fromfile(find_config(name))
    merge_options(cfg, options)
    return cfg


def memory_of(cfg: Config, cost: StepCost, gpus: int, ratio: float, available: int) -> Memory:
    """Peak memory of one of several devices.

    Args:
        cfg: The config.
        cost: Of a step on a single device.
        gpus: How many devices there are.
        ratio: By which to multiply what a step needs on top of weights and states.
        available: Bytes of memory of the device.
    """
    wrapper = cfg.get('model_wrapper_cfg') or {}
    # https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
    has_buckets = gpus > 1 and not wrapper.get('gradient_as_bucket_view', False)
    step = (cost.peak - cost.weights - cost.optimizer_states) * ratio - cost.gradients
    return Memory(
        weights=cost.weights,
        gradients=cost.gradients,
        optimizer_states=cost.optimizer_states // (gpus if is_sharded(cfg.optim_wrapper) else 1),
        ddp_buckets=cost.gradients if has_buckets else 0,
        step=max(0, round(step)),
        available=available,
    )


def ways_to_fit(cfg: Config, memory: Memory, gpus: int, can_be_split: bool) -> list[str]:
    """What to change in a config whose step does not fit.

    Args:
        cfg: The config.
        memory: What it needs.
        gpus: How many devices there are.
        can_be_split: Whether a batch may be computed in parts or recomputed.
    """
    usable = USABLE_MEMORY * memory.available
    batch_size = cfg.train_dataloader.batch_size
    at_a_time = min(batch_size, cfg.model.get('micro_batch') or batch_size)
    # Parts of a batch add up in a second set of gradients.
    images = int(at_a_time * (usable - memory.standing - memory.gradients) / max(memory.step, 1))
    images = 2 ** int(math.log2(images)) if images >= 1 else 0
    options, in_config = [], []
    if images and can_be_split:
        options.append(f'model.micro_batch={images}: the same gradients, a little slower')
    elif images:
        counts = math.ceil(accumulated(cfg) * batch_size / images)
        options.append(f'train_dataloader.batch_size={images} optim_wrapper.accumulative_counts={counts}')
    if can_be_split and not (cfg.model.get('low_memory') or cfg.model.get('contrast')):
        eager = 'model.compile=False ' if cfg.model.get('compile') else ''
        options.append(f'{eager}model.low_memory=True: the same gradients, slower')
    if cfg.model.backbone.type.endswith(('VisionTransformer', 'SinCosViT')) and not cfg.model.get('partial'):
        patch_size = cfg.model.backbone.get('patch_size', 16)
        shares = 'model.partial.visible=0.25 model.partial.corrupted=0.25'
        options.append(f'model.partial.patch_size={patch_size} {shares}: half of each image, and other gradients')
    if gpus > 1 and not is_sharded(cfg.optim_wrapper):
        saved = memory.optimizer_states * (1 - 1 / gpus) / GIB
        sharded = f"dict(type='ZeroRedundancyOptimizer', optimizer_type='{cfg.optim_wrapper.optimizer.type}')"
        hook = 'mmebm.ShardedOptimizerHook, see docs/engines.md'
        in_config.append(f'optim_wrapper.optimizer={sharded} and {hook}: {saved:.1f} GiB less')
    return [
        f'It does not fit: {memory.peak / GIB:.1f} GiB at the peak, {usable / GIB:.1f} GiB are usable. Any of these:',
        *(f'  --cfg-options {option}' for option in options),
        *(f'  in the config: {lines}' for lines in in_config),
    ]


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


def print_plan(plan: dict, notes: Sequence[str]) -> None:
    """Print a plan as a table, with the notes below it."""
    memory = {name: size / GIB for name, size in plan['memory_bytes'].items()}
    parts = ('weights', 'gradients', 'optimizer_states', 'ddp_buckets', 'step')
    lr, speed, efficiency, time = (plan[key] for key in ('learning_rate', 'images_per_second', 'efficiency', 'hours'))
    share = f'{efficiency:.0%} of the matrix rate, ' if efficiency else ''
    height, width = plan['image_size']
    of_images = f' ({plan["images"]:,} images an epoch)' if plan['images'] else ''
    rows = {
        'parameters': f'{plan["parameters"] / 1e6:.2f} M, {plan["trained_parameters"] / 1e6:.2f} M of them trained',
        'step': f'{plan["variant"]}, {plan["precision"]}, {height} x {width} pixels',
        'arithmetic': f'{plan["gflops_per_image"]:.2f} GFLOP an image',
        'memory per device': f'{memory["peak"]:.2f} of {memory["available"]:.0f} GiB',
        **{f'  {part.replace("_", " ")}': f'{memory[part]:.2f}' for part in parts if memory[part]},
        'total batch': f'{plan["devices"]} devices x {plan["batch_size"]} images x {plan["accumulative_counts"]} '
        f'accumulated = {plan["total_batch"]}',
        'learning rate': "the optimiser's own" if lr is None else f'{lr:g}',
        'images/s': 'not measured' if speed is None else f'{speed:g} ({share}{plan["speed_source"]})',
        'hours': 'not known' if time is None else f'{time:g}{of_images}',
    }
    table = Table(title=f'{plan["config"]} on {plan["devices"]} x {plan["device"]}', show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)


def available_memory(gpu: str) -> int:
    """Bytes of memory of a kind of GPU, or of this machine."""
    if gpu == 'cpu':
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return round(GPUS[gpu].memory * GIB)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mmebm-plan', description='Say what a pretraining run will need, without a GPU and without data.'
    )
    parser.add_argument('config', help="a path, or the name of one of mmebm's configs")
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='how many devices, over all nodes')
    parser.add_argument('--gpu', choices=[*GPUS, 'cpu'], required=True, help='which device')
    parser.add_argument('--images', type=int, metavar='N', help="length of the data set, where its name doesn't tell")
    parser.add_argument('--image-size', type=int, metavar='PIXELS', help="where the config doesn't tell")
    parser.add_argument('--images-per-second', type=float, metavar='X', help='of one device, for the hours')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the plan to a file')
    parser.add_argument(
        '--results',
        type=Path,
        default=PACKAGE.parent / 'benchmarks' / 'results',
        metavar='FOLDER',
        help='where benchmarks/step_time.py has left what it measured (default: %(default)s)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in training')
    return parser
