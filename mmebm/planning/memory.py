"""Peak memory of a training run on one of several devices, and how to change a config whose step does not fit."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmebm.model_building import type_name
from mmebm.planning.config_facts import accumulated, step_options
from mmebm.planning.gpus import GPUS
from mmebm.planning.step_cost import StepCost, is_sharded

GIB = 2**30

# Part of the memory that tensors can have: the rest is for the driver, libraries, communication and fragmentation.
USABLE_MEMORY = 0.9


# What low_memory excludes, at the values that it goes with.
PLAIN = dict(compile=False, attention='explicit')

# What excludes low_memory, of the model.
EXCLUDE_LOW_MEMORY = ('nce_weight', 'token_nce_weight', 'content_dropping')


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
        """Whether the usable part of the device's memory is enough."""
        return self.peak <= USABLE_MEMORY * self.available


def available_memory(gpu: str) -> int:
    """Bytes of memory of a kind of GPU, or of this machine for ``cpu``."""
    if gpu == 'cpu':
        return min(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), *container_limits())
    return round(GPUS[gpu].memory * GIB)


def container_limits(root: Path = Path('/sys/fs/cgroup')) -> list[int]:
    """Bytes that the container or the batch job of this process may use, by either version of Linux' control groups."""
    files = (root / 'memory.max', root / 'memory' / 'memory.limit_in_bytes')
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit()]  # not `max`


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
    """What to change in a config whose step does not fit, one line per way.

    Args:
        cfg: The config.
        memory: What it needs.
        gpus: How many devices there are.
        can_be_split: Whether a batch may be computed in parts or recomputed.
    """
    usable = USABLE_MEMORY * memory.available
    batch_size = cfg.train_dataloader.batch_size
    step = step_options(cfg)
    at_a_time = min(batch_size, step.get('micro_batch') or batch_size)
    # Parts of a batch add up in a second set of gradients.
    images = int(at_a_time * (usable - memory.standing - memory.gradients) / max(memory.step, 1))
    images = 2 ** int(math.log2(images)) if images >= 1 else 0
    options, in_config = [], []
    if images and can_be_split:
        options.append(f'model.training_step.micro_batch={images}: the same gradients, a little slower')
    elif images:
        counts = math.ceil(accumulated(cfg) * batch_size / images)
        options.append(f'train_dataloader.batch_size={images} optim_wrapper.accumulative_counts={counts}')
    if can_be_split and not (step.get('low_memory') or any(cfg.model.get(key) for key in EXCLUDE_LOW_MEMORY)):
        changes = {key: value for key, value in PLAIN.items() if step.get(key, value) != value} | dict(low_memory=True)
        options.append(' '.join(f'model.training_step.{key}={value}' for key, value in changes.items()))
        options[-1] += ': the same gradients, slower'
    drops_tokens = type_name(cfg.model) == 'EBMAlgorithm' and not cfg.model.get('token_dropping')
    if drops_tokens and type_name(cfg.model.backbone) in ('VisionTransformer', 'SinCosViT'):
        patch_size = cfg.model.backbone.get('patch_size', 16)
        name = 'model.token_dropping'
        shares = f'{name}.visible=0.25 {name}.corrupted=0.25'
        options.append(f'{name}.patch_size={patch_size} {shares}: half of each image, and other gradients')
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
