"""``mmebm-evaluate``: what pretrained backbones are worth downstream, side by side in one table.

Every training runs the shipped config of its task, in a process and a folder of its own: what has finished is not
run again, what was interrupted goes on from its last checkpoint.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table

from mmebm.checkpoint import Checkpoint, model_config, read_checkpoint
from mmebm.experiments.downstream import FROZEN, TASKS, Run, initialized, perform, result_rows, thaw
from mmebm.experiments.processes import check_same
from mmebm.interchange.specs import kind_of
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.checks.pretrained import architecture, check_architecture
from mmebm.launch.options import check_data_roots, config_folder, find_config, merge_options, replace_data_root

RANDOM = 'random'


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for and has not run yet, and write the table; ``--help`` lists the flags."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        runs = plan_runs(args)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    work_dir = Path(args.work_dir)
    failed = perform(runs, args.jobs, args.gpus)
    rows = [row for run in runs if run not in failed for row in result_rows(run)]
    (work_dir / 'results.json').write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
    (work_dir / 'results.md').write_text(markdown(rows))
    _print(rows)
    print(f'The table is in {work_dir / "results.md"}, its rows in {work_dir / "results.json"}.')
    if failed:
        sys.exit('\n'.join(f'Failed: {run.name}, see {run.folder / "log.txt"}' for run in failed))


def plan_runs(args: argparse.Namespace) -> list[Run]:
    """All runs, checked: checkpoints, configs and data are there and fit.

    Raises:
        FileNotFoundError: A checkpoint, config or folder of data is missing.
        ValueError: A checkpoint is of another architecture than the configs, or cannot be read, or has another's name;
            an option would change nothing; training and validation have other classes; or the work directory holds
            runs of other settings.
    """
    paths = named_checkpoints(args.checkpoints)
    checkpoints = {name: read_checkpoint(path) for name, path in paths.items()}
    backbone, data = find_backbone(next(iter(checkpoints.values()))) if args.backbone is None else args.backbone
    configs = {}
    for task in args.tasks:
        configs[task] = task_config(task, backbone, data, args.data_root, args.cfg_options or {})
        check_data_roots(configs[task], ('train_dataloader', 'val_dataloader'))
        check_classes(configs[task], ('val_dataloader',))
    for checkpoint in checkpoints.values():
        for cfg in configs.values():
            check_architecture(checkpoint, cfg.model.backbone, cfg.default_scope)
    runs = []
    for task in args.tasks:
        for init in (*checkpoints, RANDOM):
            # kNN trains nothing: a seed matters to random weights alone.
            for seed in args.seeds if task != 'knn' or init == RANDOM else args.seeds[:1]:
                folder = Path(args.work_dir) / task / init / f'seed_{seed}'
                cfg = initialized(configs[task], paths.get(init), seed, folder)
                if init == RANDOM and task not in FROZEN:
                    thaw(cfg.model.backbone)
                check_same(cfg, folder)
                runs.append(Run(task, init, seed, cfg, folder))
    return runs


def named_checkpoints(texts: Sequence[str]) -> dict[str, str]:
    """The checkpoints' files by their names, from ``NAME=FILE`` or, named by its folder, ``FILE``.

    Raises:
        ValueError: A name is another's, or that of random weights.
    """
    paths = {}
    for text in texts:
        name, path = _named(text)
        if name == RANDOM:
            raise ValueError(f'{path}: "{RANDOM}" is the name of random weights; give another one, as NAME=FILE')
        if name in paths:
            raise ValueError(
                f'Two checkpoints have the name "{name}", {paths[name]} and {path}; give each a name of its own, as '
                'NAME=FILE'
            )
        paths[name] = path
    return paths


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

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: The config's data do not lie below ``data/``, or an option would change nothing.
    """
    suffix = TASKS[task].data if data == 'in1k' else data
    cfg = Config.fromfile(find_config(f'{TASKS[task].config}-{backbone}_{suffix}'))
    old = cfg.data_root
    replace_data_root(cfg, old, str(Path(data_root) / Path(old).relative_to('data')) + ('/' if old[-1] == '/' else ''))
    try:
        merge_options(cfg, {k.partition('.')[2]: v for k, v in options.items() if k.startswith(f'{task}.')})
    except ValueError as error:
        raise ValueError(f'{task}: {error}') from error
    return cfg


def table(rows: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: an initialisation a line, a metric a column, mean and standard deviation over seeds."""
    metrics = list(dict.fromkeys((row['task'], row['metric']) for row in rows))
    lines = []
    for init in dict.fromkeys(row['init'] for row in rows):
        line = [init]
        for metric in metrics:
            values = [row['value'] for row in rows if (row['task'], row['metric']) == metric and row['init'] == init]
            spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
            line.append(f'{statistics.mean(values):.1f}{spread}' if values else '-')
        lines.append(line)
    return ['initialisation', *(f'{task}: {name}' for task, name in metrics)], lines


def markdown(rows: Sequence[dict]) -> str:
    """The table as Markdown."""
    header, lines = table(rows)
    rule = ['---', *['--:'] * (len(header) - 1)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (header, rule, *lines)) + '\n'


def _print(rows: Sequence[dict]) -> None:
    header, lines = table(rows)
    shown = Table(title='Downstream (%)')
    for column in header:
        shown.add_column(column, justify='left' if column == header[0] else 'right')
    for line in lines:
        shown.add_row(*line)
    Console().print(shown)


def _named(text: str) -> tuple[str, str]:
    """Name and file, from ``NAME=FILE`` or from a file, which may have ``=`` in its path."""
    if Path(text).is_file() or '=' not in text:
        text = f'={text}'
    name, _, path = text.partition('=')
    return name or Path(path).resolve().parent.name, path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mmebm-evaluate',
        description='Train and score downstream tasks from pretrained backbones and from random weights.',
    )
    parser.add_argument(
        'checkpoints', nargs='+', metavar='[NAME=]CHECKPOINT', help='of pretraining; a name is for the table'
    )
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='which, in this order')
    parser.add_argument(
        '--data-root', default='data', help='the folder that holds imagenet, ade/ADEChallengeData2016 and coco'
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='a training for each')
    parser.add_argument('--work-dir', default='work_dirs/evaluate', help='where runs and table go')
    parser.add_argument(
        '--backbone',
        type=lambda text: tuple(text.rsplit('_', 1)),
        help="the configs' backbone and data, as vit-b_in1k; default: what fits the first checkpoint",
    )
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, for small ones on a CPU')
    parser.add_argument('--gpus', type=int, default=1, help='processes of a training, each with a GPU')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='TASK.KEY=VALUE',
        help="options of one task's config, as finetune.model.head.num_classes=10",
    )
    return parser


if __name__ == '__main__':
    main()
