"""Performance of a short pretraining on the embedded data set downstream, against random weights.

    python -m benchmarks.downstream    all tasks, three seeds: three quarters of an hour on 2 cores
    python -m benchmarks.downstream --seeds 0 --tasks seg --dry-run    one of each; writes no results

Pretrains ``configs/ebm-patches_vit-t_shapes-64px.py``, writes Shapes in the layouts of ImageNet, ADE20K and COCO, and
runs what ``tools/evaluate.py`` runs: the same trainings through the configs that inherit mmpretrain's, mmseg's and
mmdet's, from the pretrained and from random weights. What has finished before is not run again. Writes
``results/downstream.json`` and its table into ``docs/results.md``.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.output import REPOSITORY, RESULTS, replace_between_marks
from mmebm.datasets.embedded.shapes_files import write_shapes_once
from mmebm.experiments.downstream.evaluation import Evaluation, print_table, table
from mmebm.experiments.downstream.tasks import TASKS
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows

NAME = 'ebm-patches'
CONFIG = REPOSITORY / 'configs' / f'{NAME}_vit-t_shapes-64px.py'
LAYOUTS = ('imagenet', 'ade20k', 'coco')


def pretrain(folder: Path) -> Path:
    """The checkpoint of the pretraining, which is run if it has not been."""
    seconds = folder / 'seconds.txt'
    if not seconds.exists():
        start = time.time()
        command = [sys.executable, '-m', 'mmebm.commands.train', str(CONFIG), '--work-dir', str(folder)]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / 'log.txt').open('w') as log:
            print(f'Pretraining, see {folder / "log.txt"}', flush=True)
            subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, check=True)
        seconds.write_text(f'{time.time() - start:.1f}\n')
    return Path((folder / 'last_checkpoint').read_text())


def main() -> None:
    """Pretrain, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--train', type=int, default=1000, help='labelled training images')
    parser.add_argument('--val', type=int, default=1000, help='images to score on')
    parser.add_argument('--work-dir', default='work_dirs/downstream', help='where runs, data and checkpoints go')
    parser.add_argument('--dry-run', action='store_true', help='print the table and write it nowhere else')
    args = parser.parse_args()
    work_dir = Path(args.work_dir).resolve()
    data = work_dir / f'data_{args.train}_{args.val}'
    for layout in LAYOUTS:
        write_shapes_once(data / f'shapes_{layout}', layout, args.train, args.val, image_size=64)
    checkpoint = pretrain(work_dir / 'pretraining')
    evaluation = Evaluation(
        [f'{NAME}={checkpoint}'], args.tasks, str(data), args.seeds, work_dir=work_dir / 'evaluation'
    )
    # Trainings this small use one core best, so two run at a time.
    rows, failed = evaluation.perform(evaluation.plan_runs(), jobs=2)
    print_table(rows)
    if failed:
        sys.exit('\n'.join(f'Failed: {run.name}, see {run.folder / "log.txt"}' for run in failed))
    if args.dry_run:
        return
    write_rows(RESULTS / 'downstream.json', [row | dict(device=hardware()) | stamp() for row in rows])
    seconds = float((work_dir / 'pretraining' / 'seconds.txt').read_text())
    caption = (
        f'Pretrained for {seconds / 60:.1f} minutes; {args.train} labelled images to train on, {args.val} to score on; '
        f'mean and standard deviation of {len(args.seeds)} seeds, in percent; {hardware()}, {stamp()["date"]}:'
    )
    text = f'{caption}\n\n{markdown_table(*table(rows))}'
    replace_between_marks(REPOSITORY / 'docs' / 'results.md', 'downstream', text)


if __name__ == '__main__':
    main()
