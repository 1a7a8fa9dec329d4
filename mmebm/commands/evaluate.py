"""``mmebm-evaluate``: performance of pretrained backbones on downstream tasks, side by side in one table.

Every training runs the shipped config of its task, in a process and a folder of its own. A second call runs only what
has not finished, and resumes what was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from mmebm.experiments.downstream.evaluation import Evaluation, print_table
from mmebm.experiments.downstream.tasks import TASKS
from mmebm.experiments.processes import ending_together
from mmebm.launch.command_line import OptionAction, count, expanded, path
from mmebm.output_files import locked


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table; ``--help`` lists the flags."""
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    jobs, gpus = args.pop('jobs'), args.pop('gpus')
    evaluation = Evaluation(**args)
    try:
        runs = evaluation.plan_runs(gpus)
        lock = locked(evaluation.work_dir)
    except (OSError, TypeError, ValueError, KeyError) as error:
        parser.error(str(error))
    with lock, ending_together():
        rows, failed = evaluation.perform(runs, jobs, gpus)
    print_table(rows)
    print(f'The table is in {evaluation.work_dir / "results.md"}, its rows in {evaluation.work_dir / "results.json"}.')
    if failed:
        sys.exit('\n'.join(f'Failed: {run.name}, see {run.folder / "log.txt"}' for run in failed))


def backbone_and_data(text: str) -> tuple[str, str]:
    """The two parts of ``vit-b_in1k``."""
    backbone, _, data = text.rpartition('_')
    if not backbone:
        raise argparse.ArgumentTypeError(f'{text}: give backbone and data, as vit-b_in1k')
    return backbone, data


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-evaluate',
        description='Train and score downstream tasks from pretrained backbones and from random weights.',
    )
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='[NAME=]CHECKPOINT', help='of pretraining; a name is for the table')
    add('--tasks', nargs='+', choices=TASKS, help='which, in this order; default: all that fit')
    folders = 'a folder with train/ and val/ or test/, in each one folder per class, in place of ImageNet-1k'
    add('--data', type=expanded, metavar='FOLDER', help=folders)
    holds = 'the folder that holds imagenet, ade/ADEChallengeData2016 and coco'
    add('--data-root', type=expanded, default='data', help=holds)
    add('--seeds', nargs='+', type=int, default=[0], help='a training for each')
    add('--work-dir', type=path, default='work_dirs/evaluate', help='where runs and table go')
    fitting = "the configs' backbone and data, as vit-b_in1k; default: what fits the first checkpoint or its kind"
    add('--backbone', type=backbone_and_data, help=fitting)
    add('--jobs', type=count, default=1, help='trainings at a time, for small ones on a CPU')
    add('--gpus', type=count, default=1, help='processes of a training, each with a GPU')
    options = "options of one task's config, as finetune.model.head.num_classes=10"
    add('--cfg-options', nargs='+', action=OptionAction, default={}, metavar='TASK.KEY=VALUE', help=options)
    return parser


if __name__ == '__main__':
    main()
