"""Fits the shipped configs of classification to a checkpoint's network and to any folders of classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmebm.checkpoint import Checkpoint, model_config, stored_values
from mmebm.config_tree import nested_dicts
from mmebm.datasets import ImageFolder
from mmebm.experiments.image_folders import find_test_folder
from mmebm.interchange.source import IMAGE_SIZE, backbone_config
from mmebm.model_building import build, type_name

# Options of a backbone that a task's config sets; all others are those of pretraining.
OF_THE_TASK = (
    'out_type', 'out_indices', 'final_norm', 'gap_before_final_norm', 'frozen_stages', 'norm_eval', 'drop_path_rate'
)  # fmt: skip

# Data sets of mmpretrain whose images are RGB as loaded; those of files are BGR.
LOADED_AS_RGB = ('CIFAR10', 'CIFAR100')

# Of mmengine's EMAHook by default; and of how many of its time constants a training is at least: exp(-10) is left then.
EMA_MOMENTUM, EMA_STEPS = 2e-4, 10

# Optimizer of a linear probe of few images, as in linear_ebm-vit-t_shapes.py.
LINEAR_OF_FEW = dict(type='AdamW', lr=1e-2, weight_decay=0.0)

NAME_IT = '--backbone names the configs that fit'


class Pretrained(NamedTuple):
    """What a checkpoint's config says of its network.

    Attributes:
        backbone: Its config, with scope.
        image_size: Side of the training images in pixels.
        normalization: Arguments of a data preprocessor for images loaded as BGR.
    """

    backbone: dict[str, Any]
    image_size: int
    normalization: dict[str, Any]


def describe(checkpoint: Checkpoint) -> Pretrained:
    """What a checkpoint's config says of its network.

    Raises:
        ValueError: There is no such config, one whose backbone is not known, or one of images that are not square or
            read by options that no task has.
    """
    model = model_config(checkpoint, NAME_IT)
    backbone = backbone_config(model, checkpoint, is_trusted=False)
    loader = stored_values(checkpoint, ('train_dataloader',), NAME_IT).get('train_dataloader') or {}
    nodes = [node for _, node in nested_dicts(loader)]
    for node in nodes:
        if not str(node.get('color_type', 'color')).startswith('color') or node.get('value_range'):
            options = {key: node[key] for key in ('color_type', 'value_range') if key in node}
            raise ValueError(
                f'{checkpoint.path} was trained on images that were read with {options}; the tasks of --data read '
                'colour images of 8 or 16 bits alone. Embed such images by mmebm-embed, or use a config of your own'
            )
    sizes = [node.get('scale' if type_name(node) == 'RandomResizedCrop' else 'crop_size') for node in nodes]
    size = backbone.get('img_size') or next((size for size in sizes if size), IMAGE_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(
            f'{checkpoint.path} was trained on images of {height} x {width} pixels; the tasks of --data crop squares. '
            'Use a config of your own'
        )
    preprocessor = model.get('data_preprocessor') or {}
    is_rgb = preprocessor.get('to_rgb') or any(type_name(node) in LOADED_AS_RGB for node in nodes)
    values = {key: preprocessor.get(key) and list(preprocessor[key]) for key in ('mean', 'std')}
    normalization = dict(**values, to_rgb=bool(is_rgb))
    return Pretrained(backbone, height, normalization)


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Check that checkpoints are of images of one size and one normalisation, as far as they say it.

    Raises:
        ValueError: One is of others than the first, whose config serves all.
    """
    first = describe(checkpoints[0])
    for checkpoint in checkpoints[1:]:
        if not isinstance(checkpoint.meta.get('cfg'), str):
            continue  # weights alone, as of another package
        other = describe(checkpoint)
        for name in ('image_size', 'normalization'):
            expected, found = getattr(first, name), getattr(other, name)
            if found != expected:
                raise ValueError(
                    f'{checkpoint.path} was trained with the {name.replace("_", " ")} {found}, and '
                    f'{checkpoints[0].path} with {expected}: evaluate each by a call of its own'
                )


def fit_network(cfg: Config, pretrained: Pretrained, is_trained: bool) -> None:
    """Put a pretrained network, its image size and normalisation into a classifier's config, in place.

    Args:
        cfg: The shipped config for a network of the kind.
        pretrained: From ``describe``.
        is_trained: Whether a classifier is trained; else its features alone are wanted, as those of kNN.

    Raises:
        ValueError: A classifier is wanted of a network that is of no kind with a config.
    """
    theirs, model = cfg.model.backbone, cfg.model
    is_of_kind = type_name(theirs) == type_name(pretrained.backbone)
    if is_trained and not is_of_kind:
        raise ValueError(f'{type_name(pretrained.backbone)}: no config trains a classifier of it; give --tasks knn')
    of_the_task = {key: theirs[key] for key in OF_THE_TASK if key in theirs and is_of_kind}
    others = {key: value for key, value in pretrained.backbone.items() if key not in OF_THE_TASK}
    model.backbone = ConfigDict(others | of_the_task)
    network = build({key: value for key, value in model.backbone.items() if key != 'frozen_stages'})
    if 'frozen_stages' in model.backbone and hasattr(network, 'layers'):
        model.backbone.frozen_stages = len(network.layers)  # of a ViT; other kinds have the same number of stages
    if is_trained:
        width = features_width(network, pretrained)
        for _, node in nested_dicts(dict(neck=model.neck, head=model.head)):
            node.update({key: width for key in ('in_channels', 'input_features') if key in node})
    else:
        model.neck = None  # which may be for features of another form
    cfg.data_preprocessor.update(pretrained.normalization)
    resize(cfg, pretrained.image_size)


@torch.no_grad()
def features_width(network: nn.Module, pretrained: Pretrained) -> int:
    """D, the channels of a backbone's last map (N, D, H, W)."""
    images = torch.zeros(1, pretrained.backbone.get('in_channels', 3), *[pretrained.image_size] * 2)
    network.eval()
    return network(images)[-1].shape[1]


def resize(cfg: Config, size: int) -> None:
    """Let the pipelines of a classifier's config make images of a side, in pixels; the margin is scaled with it."""
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        steps = cfg[section].dataset.pipeline
        crops = [step.crop_size for step in steps if 'crop_size' in step]
        for step in steps:
            if step.type == 'RandomResizedCrop':
                step.scale = size
            elif step.type == 'ResizeEdge':
                step.scale = round(step.scale * size / crops[0])
        for step in steps:
            if 'crop_size' in step:
                step.crop_size = size


def use_small_batches(cfg: Config, batch: int) -> None:
    """Let a classifier learn in the few small batches of a small folder, in place.

    A learning rate in proportion to the batch would be some hundredth of the config's, for some hundreds of steps: a
    linear probe of separable classes stays at chance. So a linear probe is trained by AdamW, as that of Shapes, and the
    rate of a fine-tuning falls with the root of the batch, as Adam's noise does (arXiv 2205.10287).
    """
    optimizer = cfg.optim_wrapper.optimizer
    if optimizer.type == 'LARS':
        cfg.optim_wrapper.optimizer = ConfigDict(LINEAR_OF_FEW)
    else:
        optimizer.lr *= math.sqrt(batch / cfg.auto_scale_lr.base_batch_size)
    cfg.auto_scale_lr.base_batch_size = batch  # for which the rate is now
    cfg.train_dataloader.batch_size = batch


def leave_out_slow_average(cfg: Config, gpus: int) -> None:
    """Take ``EMAHook`` out of a training that ends before its average has left the initial weights, in place.

    Args:
        cfg: A classifier's config, with all options.
        gpus: Processes of the training.
    """
    dataset, hooks = cfg.train_dataloader.dataset, cfg.get('custom_hooks') or []
    if type_name(dataset) != 'ImageFolder' or 'EMAHook' not in map(type_name, hooks):
        return  # ImageNet-1k is never so small
    total = len(ImageFolder(dataset.data_root, data_prefix=dataset.data_prefix, with_label=True))
    steps = cfg.train_cfg.max_epochs * (total // (cfg.train_dataloader.batch_size * gpus))
    cfg.custom_hooks = [
        hook for hook in hooks if type_name(hook) != 'EMAHook' or hook.get('momentum', EMA_MOMENTUM) * steps > EMA_STEPS
    ]


def use_folders(cfg: Config, data: Path) -> None:
    """Let a classifier's config read folders of classes, in place.

    Batches of a small folder are a tenth of it (``use_small_batches``), and the last, smaller one is dropped.

    Args:
        cfg: The config.
        data: Holds ``train/`` and ``test/`` or ``val/``, in each one folder per class.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: There are fewer than two classes.
    """
    prefixes = dict(train_dataloader='train', val_dataloader=find_test_folder(data))
    prefixes['test_dataloader'] = prefixes['val_dataloader']
    for section, prefix in prefixes.items():
        loader = cfg[section]
        reading = dict(type='mmebm.ImageFolder', data_root=str(data), data_prefix=prefix, with_label=True)
        loader.dataset = ConfigDict(reading, pipeline=loader.dataset.pipeline)
    images = ImageFolder(str(data / 'train'), with_label=True)
    classes, total = len(images.CLASSES), len(images)
    if classes < 2:
        raise ValueError(
            f'--data {data}: train/ has {classes} classes, and a classifier needs two: one folder per class'
        )
    batch = min(max(total // 10, 8), total)
    if batch < cfg.train_dataloader.batch_size:
        use_small_batches(cfg, batch)
    cfg.train_dataloader.drop_last = True
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = classes
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=1)
