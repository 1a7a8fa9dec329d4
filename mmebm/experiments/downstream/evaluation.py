"""The evaluation of pretrained backbones on downstream tasks, beside random weights: its runs and its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmebm.checkpoint import Checkpoint, read_checkpoint
from mmebm.experiments.downstream.fitting import check_alike, leave_out_slow_average
from mmebm.experiments.downstream.tasks import (
    CLASSIFICATION,
    FROZEN,
    TASKS,
    add_options,
    check_names,
    find_backbone,
    fitted_config,
    shipped_config,
)
from mmebm.experiments.downstream.trainings import Run, check_age, perform, result_rows, thaw, with_weights
from mmebm.experiments.processes import check_same
from mmebm.experiments.results import markdown_table, mean_and_std_text, write_rows
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.checks.pretrained import check_architecture
from mmebm.launch.command_line import expanded
from mmebm.launch.options import check_data_roots

RANDOM = 'random'
FOLDERS = (
    'Give the folder that holds imagenet, ade/ADEChallengeData2016 and coco as --data-root, or your own with train/ '
    'and val/, in each one folder per class, as --data'
)


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        checkpoints: Of pretraining, as ``NAME=FILE`` or ``FILE``.
        tasks: Of ``TASKS``, in this order; None: all that there are for the backbone and the data.
        data: A folder that holds ``train/`` and ``test/`` or ``val/``, in each one folder per class; None: ImageNet-1k
            below ``data_root``.
        data_root: The folder that holds imagenet, ade/ADEChallengeData2016 and coco.
        seeds: A training for each.
        work_dir: Where runs and table go.
        backbone: Backbone and data in the configs' names; None: those that fit the first checkpoint, or its kind.
        cfg_options: Options of one task's config, by ``TASK.KEY``.
    """

    checkpoints: Sequence[str]
    tasks: Sequence[str] | None = None
    data: str | None = None
    data_root: str = 'data'
    seeds: Sequence[int] = (0,)
    work_dir: Path = Path('work_dirs/evaluate')
    backbone: tuple[str, str] | None = None
    cfg_options: Mapping[str, Any] = field(default_factory=dict)

    def plan_runs(self, gpus: int = 1) -> list[Run]:
        """All runs, checked: checkpoints, configs and data are there and fit.

        Args:
            gpus: Processes of a training.

        Raises:
            FileNotFoundError: A checkpoint, config or folder of data is missing.
            ValueError: A checkpoint is of another architecture than the configs, is for images of another size or
                normalisation than the first, cannot be read, or has another's name; a seed is given twice; an option
                would change nothing; training and validation have other classes; or the work directory holds runs of
                other settings.
        """
        paths = named_checkpoints(self.checkpoints)
        checkpoints = {name: read_checkpoint(path) for name, path in paths.items()}
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f'--seeds {" ".join(map(str, self.seeds))}: give different ones')
        configs = self._configs([*checkpoints.values()], gpus)
        for cfg in configs.values():
            check_data_roots(cfg, ('train_dataloader', 'val_dataloader'), FOLDERS)
            check_classes(cfg, ('val_dataloader',))
        for checkpoint in checkpoints.values():
            for cfg in configs.values():
                check_architecture(checkpoint, cfg.model.backbone, cfg.default_scope)
        runs = []
        for task, cfg in configs.items():
            for init in (*checkpoints, RANDOM):
                # kNN trains nothing: a seed matters to random weights alone.
                for seed in self.seeds if task != 'knn' or init == RANDOM else self.seeds[:1]:
                    folder = self.work_dir / task / init / f'seed_{seed}'
                    run = Run(task, init, seed, with_weights(cfg, paths.get(init), seed, folder), folder)
                    if init == RANDOM and task not in FROZEN:
                        thaw(run.cfg.model.backbone)
                    check_same(run.cfg, folder)
                    check_age(run, paths.get(init))
                    runs.append(run)
        return runs

    def _configs(self, checkpoints: Sequence[Checkpoint], gpus: int) -> dict[str, Config]:
        """The tasks' configs for the checkpoints, with the options."""
        if self.backbone and self.data:
            raise ValueError('--data takes the network from the checkpoint; leave --backbone out')
        found = self.backbone or find_backbone(checkpoints[0])
        is_shipped = found is not None and self.data is None
        if not is_shipped:
            check_alike(checkpoints)
        tasks = self.tasks or (tuple(TASKS) if is_shipped else CLASSIFICATION)
        check_names(self.cfg_options, tasks)
        configs = {}
        for task in tasks:
            if is_shipped:
                configs[task] = shipped_config(task, *found, self.data_root)
            else:
                configs[task] = fitted_config(task, found, checkpoints[0], self.data_root, self.data)
            add_options(configs[task], task, self.cfg_options)
            if not is_shipped:
                leave_out_slow_average(configs[task], gpus)
        return configs

    def perform(self, runs: Sequence[Run], jobs: int = 1, gpus: int = 1) -> tuple[list[dict], list[Run]]:
        """Do what has no result yet, and write rows and table of all results.

        Args:
            runs: From ``plan_runs``.
            jobs: How many at a time.
            gpus: Processes of a training, each with a GPU.

        Returns:
            The rows, one per metric and run, and the runs that failed.
        """
        failed = perform(runs, jobs, gpus)
        rows = [row for run in runs if run not in failed for row in result_rows(run)]
        write_rows(self.work_dir / 'results.json', rows)
        (self.work_dir / 'results.md').write_text(markdown_table(*table(rows)) + '\n')
        return rows, failed


def named_checkpoints(texts: Sequence[str]) -> dict[str, str]:
    """The checkpoints' files by their names, from ``NAME=FILE`` or, named by its folder, ``FILE``.

    Raises:
        ValueError: A name is another's, or that of random weights.
    """
    paths = {}
    for text in texts:
        if Path(text).is_file() or '=' not in text:  # a file may have ``=`` in its path
            text = f'={text}'
        name, _, path = text.partition('=')
        path = expanded(path)
        name = name or Path(path).resolve().parent.name
        if name == RANDOM:
            raise ValueError(f'{path}: "{RANDOM}" is the name of random weights; give another one, as NAME=FILE')
        if name in paths:
            raise ValueError(
                f'Two checkpoints have the name "{name}", {paths[name]} and {path}; give each a name of its own, as '
                'NAME=FILE'
            )
        paths[name] = path
    return paths


def table(rows: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a line per initialisation, a column per metric, mean and standard deviation over seeds."""
    metrics = list(dict.fromkeys((row['task'], row['metric']) for row in rows))
    lines = []
    for init in dict.fromkeys(row['init'] for row in rows):
        columns = (
            [row['value'] for row in rows if (row['task'], row['metric'], row['init']) == (*metric, init)]
            for metric in metrics
        )
        lines.append([init, *map(mean_and_std_text, columns)])
    return ['initialisation', *(f'{task}: {name}' for task, name in metrics)], lines


def print_table(rows: Sequence[dict]) -> None:
    """Print the table on the screen."""
    header, lines = table(rows)
    shown = Table(title='Downstream (%)')
    for column in header:
        shown.add_column(column, justify='left' if column == header[0] else 'right')
    for line in lines:
        shown.add_row(*line)
    Console(markup=False).print(shown)
