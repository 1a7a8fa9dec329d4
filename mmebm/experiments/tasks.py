"""Downstream tasks: their metrics, and the shipped configs that train them for a backbone."""

import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmebm.checkpoint import Checkpoint, model_config
from mmebm.config_files import config_folder, find_config
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


def find_backbone(checkpoint: Checkpoint) -> tuple[str, str]:
    """Backbone and data in the names of the shipped configs that fit a checkpoint, as ``('vit-b', 'in1k')``.

    Raises:
        ValueError: None fits, or the checkpoint does not say what it is.
    """
    trained = model_config(checkpoint)['backbone']
    known = {}
    for path in sorted((config_folder() / 'finetune').glob('finetune_ebm-*.py')):
        backbone, data = re.fullmatch(r'finetune_ebm-(.+)_(.+)', path.stem).groups()
        if '-' not in data:  # a share of the labels
            known[backbone, data] = Config.fromfile(path).model.backbone
    of_kind = {name: backbone for name, backbone in known.items() if kind_of(backbone.type) == kind_of(trained['type'])}
    network = of_kind and architecture(trained, None)  # of another kind, it may not even build here
    for name, backbone in of_kind.items():
        if architecture(backbone, None) == network:
            return name
    raise ValueError(
        f'{checkpoint.path}: no shipped config is for its backbone, {trained["type"]} {trained.get("arch", "")}. There '
        f'are {", ".join("_".join(name) for name in known)}; --backbone takes one of them unseen'
    )


def task_config(task: str, backbone: str, data: str, data_root: str, options: dict) -> Config:
    """The shipped config of a task, on data below ``data_root``, with the options that name the task.

    Args:
        task: One of ``TASKS``.
        backbone: As in the configs' names.
        data: Of the pretraining, as in the configs' names.
        data_root: The folder in place of the configs' ``data/``.
        options: Values by ``TASK.KEY``; those of other tasks are passed over.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: The config's data do not lie below ``data/``, or an option would change nothing.
    """
    suffix = TASKS[task].data if data == 'in1k' else data
    cfg = Config.fromfile(find_config(f'{TASKS[task].config}-{backbone}_{suffix}'))
    old = cfg.data_root
    replace_data_root(cfg, old, str(Path(data_root) / Path(old).relative_to('data')) + ('/' if old[-1] == '/' else ''))
    try:
        merge_options(cfg, options_of(task, options))
    except ValueError as error:
        raise ValueError(f'{task}: {error}') from error
    return cfg


def options_of(name: str, options: dict) -> dict:
    """Those of options ``NAME.KEY=VALUE`` that have the name, without it."""
    return {key.partition('.')[2]: value for key, value in options.items() if key.partition('.')[0] == name}
