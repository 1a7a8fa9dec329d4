"""What a training config says of precision, images, batch and learning rate."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmebm.model_building import type_name

# Training images, where a data set's files are not needed to know.
DATASET_SIZES = {'CIFAR10': 50_000, 'CIFAR100': 50_000, 'MNIST': 60_000, 'FashionMNIST': 60_000, 'ImageNet': 1_281_167}
IMAGENET = re.compile(r'(imagenet|ilsvrc|in)[-_]?(1k|2012)?', re.IGNORECASE)  # a folder's name


def autocast_type(cfg: Config) -> torch.dtype:
    """The type that a config trains in on a GPU: float32, or what its ``AmpOptimWrapper`` casts to."""
    if type_name(cfg.optim_wrapper) != 'AmpOptimWrapper':
        return torch.float32
    return getattr(torch, cfg.optim_wrapper.get('dtype') or 'float16')


def precision_name(cfg: Config, dtype: torch.dtype, on_gpu: bool) -> str:
    """What the benchmark calls the precision of a config that autocasts to a type."""
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook) == 'MatmulPrecisionHook']
    has_tf32 = on_gpu and any(hook.get('precision') != 'highest' for hook in hooks)
    return {torch.bfloat16: 'bf16', torch.float16: 'fp16'}.get(dtype, 'tf32' if has_tf32 else 'fp32')


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the training images: as cropped or resized last, else as the data set or the backbone say.

    Raises:
        ValueError: None of them says.
    """
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:  # in RepeatDataset, ConcatDataset
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    sizes = [dataset.get('image_size') or cfg.model.backbone.get('img_size')]
    for step in dataset.get('pipeline', []):
        if type_name(step).endswith('Crop'):
            sizes.append(step.get('crop_size') or step.get('scale'))
        elif type_name(step).endswith('Resize') and 'scale' in step:
            scale = step['scale']
            sizes.append(scale if isinstance(scale, int) else scale[::-1])  # (width, height)
    size = next((size for size in reversed(sizes) if size), None)
    if size is None:
        raise ValueError('The config does not say how large the training images are; give --image-size.')
    return (size, size) if isinstance(size, int) else tuple(size)


def known_length(dataset: Mapping[str, Any]) -> int | None:
    """How many images a data set has, if its type or its folder's name tells; its files are not looked at."""
    name = type_name(dataset)
    # Not tiny-imagenet, imagenet-100 or imagenet21k.
    if name == 'ImageFolder' and any(IMAGENET.fullmatch(part) for part in Path(dataset.get('data_root', '')).parts):
        name = 'ImageNet'
    images = dataset.get('size', 10_000) if name == 'Shapes' else DATASET_SIZES.get(name)
    indices = dataset.get('indices')  # of a part of it
    if images is None or indices is None:
        return images
    return min(images, indices) if isinstance(indices, int) else len(indices)


def step_options(cfg: Config) -> dict:
    """How the training step of a model of ours is computed: options of ``mmebm.training_step.TrainingStep``."""
    return cfg.model.get('training_step') or {}


def accumulated(cfg: Config) -> int:
    """Steps whose gradients are added up before the weights change."""
    return cfg.optim_wrapper.get('accumulative_counts', 1)


def total_batch(cfg: Config, gpus: int) -> int:
    """Images behind one change of the weights."""
    return gpus * cfg.train_dataloader.batch_size * accumulated(cfg)


def base_batch_size(cfg: Config) -> int | None:
    """The total batch that the config's learning rate is meant for."""
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')


def learning_rate(cfg: Config, gpus: int) -> float | None:
    """The learning rate for the total batch: the config's, scaled linearly where it says from what."""
    lr, base = cfg.optim_wrapper.optimizer.get('lr'), base_batch_size(cfg)
    return lr if lr is None or base is None else lr * total_batch(cfg, gpus) / base


def learning_rate_source(cfg: Config, gpus: int) -> str:
    """Where the learning rate for the total batch is from."""
    lr, base, total = cfg.optim_wrapper.optimizer.get('lr'), base_batch_size(cfg), total_batch(cfg, gpus)
    if lr is None:
        return "the optimiser's default"
    if base is None:
        return "the config's optim_wrapper.optimizer.lr"
    if base == total:
        return f"the config's optim_wrapper.optimizer.lr, which is for a total batch of {base}"
    return f"the config's optim_wrapper.optimizer.lr={lr:g} is for a total batch of {base}; times {total}/{base}"
