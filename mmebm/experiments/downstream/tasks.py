"""Downstream tasks: their metrics, and the shipped configs that train them for a backbone."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmebm.checkpoint import Checkpoint, model_config
from mmebm.config_files import config_folder, find_config
from mmebm.experiments.downstream.fitting import NAME_IT, describe, fit_network, use_folders
from mmebm.interchange.source import backbone_config
from mmebm.interchange.specs import kind_of
from mmebm.launch.checks.pretrained import architecture
from mmebm.launch.options import merge_options, replace_data_root


class Metric(NamedTuple):
    """A figure of the table: ``task`` and ``name`` in its rows, ``key`` in the training's log; all are in percent."""

    task: str
    name: str
    key: str
    scale: float = 1.0


class Task(NamedTuple):
    """A downstream task: the config that trains it, and what is read from its validation.

    Attributes:
        config: The config's name up to the backbone.
        data: The config's name after the backbone, where it is not on the embedded data set.
        metrics: The figures of its validation.
    """

    config: str
    data: str
    metrics: tuple[Metric, ...]


TASKS = {
    'knn': Task('linear_ebm', 'in1k', (Metric('knn', 'top-1', 'frozen/knn_top1'),)),
    'linear': Task('linear_ebm', 'in1k', (Metric('linear', 'top-1', 'accuracy/top1'),)),
    'finetune': Task('finetune_ebm', 'in1k', (Metric('finetune', 'top-1', 'accuracy/top1'),)),
    'seg': Task('upernet_ebm', 'ade20k', (Metric('seg', 'mIoU', 'mIoU'),)),
    'det': Task(
        'mask-rcnn_ebm',
        'coco',
        (Metric('det', 'box AP', 'coco/bbox_mAP', 100.0), Metric('ins', 'mask AP', 'coco/segm_mAP', 100.0)),
    ),
}
FROZEN = ('knn', 'linear')  # tasks that train no backbone
CLASSIFICATION = (*FROZEN, 'finetune')

# For networks of a kind that no config is for: those of another size, whose network is replaced.
OF_KIND = {'SwinTransformer': 'swin-b', 'ConvNeXt': 'convnext-t', 'ResNet': 'resnet50'}
OTHERWISE = 'vit-s'


def find_backbone(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """Backbone and data in the names of the shipped configs for a checkpoint, as ``('vit-b', 'in1k')``, or None.

    Raises:
        ValueError: The checkpoint does not say what it is, or names types by their module.
    """
    model = model_config(checkpoint, NAME_IT)
    if not (model.get('backbone') or {}).get('type'):
        raise ValueError(f'{checkpoint.path} holds a {model.get("type")}, which has no backbone to evaluate')
    known = _shipped_networks(kind_of(model['backbone']['type']))
    # Of another kind, it may not even build here.
    network = known and architecture(backbone_config(model, checkpoint, is_trusted=False), None)
    return next((name for name, shipped in known.items() if shipped == network), None)


@cache
def _shipped_networks(kind: str) -> dict[tuple[str, str], Any]:
    """The architectures of a kind of backbone that there are configs for, by their names."""
    known = {}
    for path in sorted((config_folder() / 'finetune').glob('finetune_ebm-*.py')):
        backbone, data = re.fullmatch(r'finetune_ebm-(.+)_(.+)', path.stem).groups()
        config = Config.fromfile(path).model.backbone
        if '-' not in data and kind_of(config.type) == kind:  # else for a share of the labels
            known[backbone, data] = architecture(config, None)
    return known


def shipped_config(task: str, backbone: str, data: str, data_root: str) -> Config:
    """The shipped config of a task, on data below ``data_root``.

    Args:
        task: One of ``TASKS``.
        backbone: As in the configs' names.
        data: Of the pretraining, as in the configs' names.
        data_root: The folder in place of the configs' ``data/``.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: The config's data do not lie below ``data/``.
    """
    suffix = TASKS[task].data if data == 'in1k' else data
    cfg = Config.fromfile(find_config(f'{TASKS[task].config}-{backbone}_{suffix}'))
    old = cfg.data_root
    replace_data_root(cfg, old, str(Path(data_root) / Path(old).relative_to('data')) + ('/' if old[-1] == '/' else ''))
    return cfg


def fitted_config(
    task: str, found: tuple[str, str] | None, checkpoint: Checkpoint, data_root: str, data: str | None
) -> Config:
    """The config of a task for a checkpoint's network, on ImageNet-1k or on folders of classes.

    It is the shipped one for the network, or the one for another of its kind, with this network in it.

    Args:
        task: One of ``TASKS``.
        found: From ``find_backbone``.
        checkpoint: Of the network.
        data_root: As in ``shipped_config``.
        data: The folder that holds those of classes; None: ImageNet-1k below ``data_root``.

    Raises:
        FileNotFoundError: The folder is missing.
        ValueError: The task has no config for the network or the data.
    """
    if task not in CLASSIFICATION:
        what = f'--data {data}' if data else f'the backbone of {checkpoint.path}'
        raise ValueError(f'{task}: there is no config for {what}; give --tasks {" ".join(CLASSIFICATION)}')
    pretrained = describe(checkpoint)
    backbone = OF_KIND.get(kind_of(pretrained.backbone['type']), OTHERWISE)
    if found and found[1] == 'in1k':
        backbone = found[0]
    cfg = shipped_config(task, backbone, 'in1k', data_root)
    fit_network(cfg, pretrained, is_trained=task != 'knn')
    if data:
        use_folders(cfg, Path(data).resolve())
    return cfg


def add_options(cfg: Config, task: str, options: dict) -> None:
    """Put the options that name a task into its config, in place.

    Raises:
        ValueError: One would change nothing.
    """
    try:
        merge_options(cfg, options_of(task, options))
    except ValueError as error:
        raise ValueError(f'{task}: {error}') from error


def check_names(options: Iterable[str], names: Sequence[str]) -> None:
    """Check that every option ``NAME.KEY`` has one of the names.

    Raises:
        ValueError: Names the first that has not.
    """
    for key in options:
        name, _, rest = key.partition('.')
        if name not in names or not rest:
            raise ValueError(f'--cfg-options {key}: must begin with one of {", ".join(names)}, as {names[0]}.{key}')


def options_of(name: str, options: dict) -> dict:
    """Those of options ``NAME.KEY=VALUE`` that have the name, without it."""
    return {key.partition('.')[2]: value for key, value in options.items() if key.partition('.')[0] == name}
