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

from mmebm.commands._config import PACKAGE, find_config, replace_data_root, warn_unknown_options
from mmebm.commands._step_cost import StepCost, is_sharded, step_cost

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """A kind of GPU.

    Attributes:
        name: Part of the name that its driver gives.
        memory: GiB. Data sheets say GB; what the drivers show is as many GiB, less one or two in a hundred.
        matrix_rate: TFLOP/s in bfloat16 without sparsity; half of what data sheets give with it.
    """

    name: str
    memory: float
    matrix_rate: float


# From the makers' data sheets and, for the RTX 4090, NVIDIA's white paper on the Ada architecture.
GPUS = {
    'a100-40': GPU('A100-SXM4-40GB', 40, 312),
    'a100-80': GPU('A100-SXM4-80GB', 80, 312),
    'h100': GPU('H100 80GB', 80, 989),
    'h200': GPU('H200', 141, 989),
    'b200': GPU('B200', 180, 2250),
    'l4': GPU('L4', 24, 121),
    'l40s': GPU('L40S', 48, 362),
    'rtx4090': GPU('RTX 4090', 24, 165),
    'mi300x': GPU('MI300X', 192, 1307),
}

# Part of the memory that tensors can have: the rest is for the driver, libraries, communication and fragmentation.
USABLE_MEMORY = 0.9

PRECISIONS = {torch.float32: 'fp32', torch.bfloat16: 'bf16', torch.float16: 'fp16'}

# Training images, where a data set's files are not needed to know.
DATASET_SIZES = {'CIFAR10': 50_000, 'CIFAR100': 50_000, 'MNIST': 60_000, 'FashionMNIST': 60_000, 'ImageNet': 1_281_167}


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


@dataclass(frozen=True)
class Speed:
    """How fast training is.

    Attributes:
        images_per_second: Of one device.
        source: What it is derived from.
    """

    images_per_second: float
    source: str


def main(argv: Sequence[str] | None = None) -> None:
    """Plan a run; ``--help`` lists the flags."""
    parser = _parser()
    args = parser.parse_args(argv)
    MMLogger.get_instance('mmebm-plan', log_level='WARNING')  # mmengine tells of each parameter's weight decay
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
        TypeError: The config's model is no ``EBMAlgorithm``.
        ValueError: The config does not say how large the images are, or how many GPUs there are makes no sense.
    """
    if args.gpus < 1:
        raise ValueError(f'--gpus must be at least 1, not {args.gpus}')
    cfg = load_config(args.config, args.cfg_options or {})
    on_gpu = args.gpu != 'cpu'
    precision = autocast_type(cfg) if on_gpu else torch.float32
    height, width = image_size(cfg) if args.image_size is None else (args.image_size, args.image_size)
    cost = step_cost(cfg, (height, width), precision, on_gpu)
    rows = [row for row in _rows(args.results, on_gpu) if row['precision'] == PRECISIONS[precision]]
    gflops = cost.flops_per_image / 1e9

    notes = []
    compiled = cfg.model.get('compile', False)
    ratio = compiled_memory_ratio(rows, gflops) if compiled else 1.0
    if ratio is None:
        notes.append('The memory is that of the step without compile=True: compiled, it has not been measured yet.')
    memory = memory_of(cfg, cost, args.gpus, ratio=ratio or 1.0, available=_available_memory(args.gpu))
    if args.images_per_second is not None:
        speed = Speed(args.images_per_second, 'as given')
    else:
        speed = measured_speed(_of_device(rows, args.gpu), variants_of(cfg), gflops)
    images, lr = args.images or known_length(cfg), learning_rate(cfg, args.gpus)
    if not memory.fits:
        notes += ways_to_fit(cfg, memory, args.gpus)
    if speed is None:
        notes.append(
            f'Speed: {variants_of(cfg)[0]} has not been measured on {args.gpu} in {PRECISIONS[precision]}; '
            'run benchmarks/step_time.py there, or give --images-per-second.'
        )
    elif args.gpus > 1:
        notes.append('Speed: that of one device times their number, without what communication takes.')
    if images is None:
        notes.append('Hours: how many images the data set has is not known without it; give --images.')
    if lr != cfg.optim_wrapper.optimizer.get('lr'):
        notes.append(f'Learning rate: --cfg-options optim_wrapper.optimizer.lr={lr:g}')
    if 'auto_scale_lr' in cfg and accumulated(cfg) > 1:
        notes.append('Do not train with --auto-scale-lr: it leaves accumulative_counts out of the total batch.')

    plan = dict(
        config=str(args.config),
        device=args.gpu,
        devices=args.gpus,
        precision=PRECISIONS[precision],
        variant=variants_of(cfg)[0],
        image_size=[height, width],
        parameters=cost.parameters,
        trained_parameters=cost.trained,
        gflops_per_image=round(gflops, 2),
        memory_bytes=asdict(memory) | dict(peak=memory.peak, fits=memory.fits),
        batch_size=cfg.train_dataloader.batch_size,
        accumulative_counts=accumulated(cfg),
        total_batch=total_batch(cfg, args.gpus),
        learning_rate=lr,
        images_per_second=speed and round(speed.images_per_second * args.gpus, 1),
        speed_source=speed and speed.source,
        images=images,
        hours=hours(cfg, images, speed, args.gpus),
    )
    return plan, notes


def load_config(name: str, options: dict) -> Config:
    """A config with the command line's options in it, as in training."""
    cfg = Config.fromfile(find_config(name))
    roots = {key: cfg[key] for key in options if key.endswith('data_root') and key in cfg}
    warn_unknown_options(cfg, options)
    cfg.merge_from_dict(options)
    for key, old in roots.items():
        replace_data_root(cfg, old, str(options[key]))
    return cfg


def autocast_type(cfg: Config) -> torch.dtype:
    """The type that a config trains in on a GPU: float32, or what its ``AmpOptimWrapper`` casts to."""
    if cfg.optim_wrapper.get('type') != 'AmpOptimWrapper':
        return torch.float32
    return getattr(torch, cfg.optim_wrapper.get('dtype') or 'float16')


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the training images: as cropped or resized last, else as the data set or the backbone say.

    Raises:
        ValueError: None of them says.
    """
    dataset = cfg.train_dataloader.dataset
    steps = [step.get('crop_size') or step.get('scale') for step in dataset.get('pipeline', [])]
    found = [size for size in (*steps[::-1], dataset.get('image_size'), cfg.model.backbone.get('img_size')) if size]
    if not found:
        raise ValueError('The config does not say how large the training images are; give --image-size.')
    width, height = (found[0], found[0]) if isinstance(found[0], int) else found[0]
    return height, width


def known_length(cfg: Config) -> int | None:
    """How many images a training set has, if its name tells."""
    dataset = cfg.train_dataloader.dataset
    name = dataset.type.rpartition('.')[2]
    if name == 'ImageFolder' and 'imagenet' in dataset.get('data_root', '').lower():
        name = 'ImageNet'
    return dataset.get('size', 10_000) if name == 'Shapes' else DATASET_SIZES.get(name)


def accumulated(cfg: Config) -> int:
    """Steps whose gradients are added up before the weights change."""
    return cfg.optim_wrapper.get('accumulative_counts', 1)


def total_batch(cfg: Config, gpus: int) -> int:
    """Images behind one change of the weights."""
    return gpus * cfg.train_dataloader.batch_size * accumulated(cfg)


def learning_rate(cfg: Config, gpus: int) -> float | None:
    """The config's learning rate, scaled linearly from its ``auto_scale_lr.base_batch_size`` if it has one."""
    lr, base = cfg.optim_wrapper.optimizer.get('lr'), cfg.get('auto_scale_lr', {}).get('base_batch_size')
    return lr if lr is None or base is None else lr * total_batch(cfg, gpus) / base


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


def ways_to_fit(cfg: Config, memory: Memory, gpus: int) -> list[str]:
    """What to change in a config whose step does not fit."""
    usable = USABLE_MEMORY * memory.available
    first = f'It does not fit: {memory.peak / GIB:.1f} GiB at the peak, {usable / GIB:.1f} GiB are usable.'
    ways = []
    batch_size = min(cfg.model.get('micro_batch') or math.inf, cfg.train_dataloader.batch_size)
    images = int(batch_size * (usable - memory.standing) / memory.step) if memory.step else 0
    if images >= 1:
        ways.append(f'model.micro_batch={2 ** int(math.log2(images))}: the same gradients, a little slower')
    if not (cfg.model.get('low_memory') or cfg.model.get('compile')):
        ways.append('model.low_memory=True: the same gradients, at about twice the time')
    if not cfg.model.get('partial') and 'patch_size' in cfg.model.backbone:
        ways.append('model.partial: restore a part of each image, for ViTs')
    if gpus > 1 and not is_sharded(cfg.optim_wrapper):
        saved = memory.optimizer_states * (1 - 1 / gpus) / GIB
        optimizer = cfg.optim_wrapper.optimizer.type
        ways.append(
            'optim_wrapper.optimizer.type=ZeroRedundancyOptimizer '
            f'optim_wrapper.optimizer.optimizer_type={optimizer}: {saved:.1f} GiB less'
        )
    return [first, *(f'  --cfg-options {way}' for way in ways)]


def variants_of(cfg: Config) -> tuple[str, ...]:
    """What the benchmark calls the way in which a config computes its step, and ways that are as efficient."""
    if cfg.model.get('compile'):
        return ('ebm-compiled',)
    if cfg.model.get('low_memory'):
        return ('ebm-low-memory',)
    if cfg.model.get('attention') == 'recomputed':
        return ('ebm-recomputed-attention',)
    return ('ebm-partial-eager', 'ebm-eager') if cfg.model.get('partial') else ('ebm-eager',)


def measured_speed(rows: Sequence[dict], variants: Sequence[str], gflops: float) -> Speed | None:
    """Speed at the efficiency that was measured for the step nearest in arithmetic; None if none was.

    Args:
        rows: Measurements on the device, in the precision.
        variants: Of the benchmark's.
        gflops: Per image, of the step that is planned.
    """
    row = _nearest([row for row in rows if row['variant'] in variants], gflops)
    if row is None:
        return None
    rate = row['images_per_second'] * row['gflops_per_image']  # GFLOP/s
    source = f'{rate / 1e3:.3g} TFLOP/s, measured with {row["backbone"]}, {row["image_size"]} px, batch {row["batch"]}'
    return Speed(rate / gflops, f'{source}, on {row["device"]}')


def compiled_memory_ratio(rows: Sequence[dict], gflops: float) -> float | None:
    """Memory of a compiled step as a part of that of an eager one, for the nearest step that was measured as both."""
    setting = ('device', 'backbone', 'image_size', 'batch')
    eager = {tuple(row[key] for key in setting): row for row in rows if row['variant'] == 'ebm-eager'}
    compiled = [row for row in rows if row['variant'] == 'ebm-compiled' and tuple(row[key] for key in setting) in eager]
    row = _nearest(compiled, gflops)
    if row is None:
        return None
    return row['peak_memory_ratio'] / eager[tuple(row[key] for key in setting)]['peak_memory_ratio']


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
    lr, speed, time = plan['learning_rate'], plan['images_per_second'], plan['hours']
    height, width = plan['image_size']
    rows = {
        'parameters': f'{plan["parameters"] / 1e6:.2f} M ({plan["trained_parameters"] / 1e6:.2f} M trained)',
        'step': f'{plan["variant"]}, {plan["precision"]}, {height} x {width} pixels',
        'arithmetic': f'{plan["gflops_per_image"]:.2f} GFLOP an image',
        'memory per device': f'{memory["peak"]:.2f} of {memory["available"]:.0f} GiB: '
        + ', '.join(f'{part.replace("_", " ")} {memory[part]:.2f}' for part in parts if memory[part]),
        'total batch': f'{plan["devices"]} devices x {plan["batch_size"]} images x {plan["accumulative_counts"]} '
        f'accumulated = {plan["total_batch"]}',
        'learning rate': "the optimiser's own" if lr is None else f'{lr:g}',
        'images/s': 'not measured' if speed is None else f'{speed:g} ({plan["speed_source"]})',
        'hours': 'not known' if time is None else f'{time:g}',
    }
    table = Table(title=f'{plan["config"]} on {plan["devices"]} x {plan["device"]}', show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)


def _rows(folder: Path, on_gpu: bool) -> list[dict]:
    path = folder / f'step_time_{"gpu" if on_gpu else "cpu"}.json'
    return json.loads(path.read_text()) if path.is_file() else []


def _of_device(rows: Sequence[dict], gpu: str) -> list[dict]:
    return list(rows) if gpu == 'cpu' else [row for row in rows if GPUS[gpu].name.lower() in row['device'].lower()]


def _nearest(rows: Sequence[dict], gflops: float) -> dict | None:
    return min(rows, key=lambda row: abs(math.log(row['gflops_per_image'] / gflops)), default=None)


def _available_memory(gpu: str) -> int:
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
