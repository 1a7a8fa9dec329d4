"""What a short pretraining on the embedded data set is worth downstream, against random weights.

    python benchmarks/downstream.py    all tasks, three seeds: three quarters of an hour on 2 cores
    python benchmarks/downstream.py --seeds 0 --tasks seg --dry-run    one of each; writes no results

Pretrains ``configs/ebm-patches_vit-t_shapes-64px.py``, writes Shapes in the layouts of ImageNet, ADE20K and COCO, and
runs ``tools/evaluate.py``: the same trainings through the configs that inherit mmpretrain's, mmseg's and mmdet's, from
the pretrained and from random weights. What has finished before is not run again. Writes ``results/downstream.json``
and its table into the README.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmebm.commands import evaluate, make_shapes
from mmebm.experiments.results import REPOSITORY, RESULTS, hardware, replace_between_marks, stamp, write_rows

CONFIG = REPOSITORY / 'configs' / 'ebm-patches_vit-t_shapes-64px.py'
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
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        seconds.write_text(f'{time.time() - start:.1f}\n')
    return Path((folder / 'last_checkpoint').read_text())


def draw(folder: Path, num_train: int, num_val: int) -> None:
    """Write the labelled data sets, unless they are there."""
    for layout in LAYOUTS:
        target = folder / f'shapes_{layout}'
        if not target.exists():
            parts = target.with_suffix('.part')  # so that what was interrupted is not taken for whole
            shutil.rmtree(parts, ignore_errors=True)
            sizes = ['--train', str(num_train), '--val', str(num_val), '--image-size', '64']
            make_shapes.main([str(parts), '--layout', layout, *sizes])
            parts.rename(target)


def main() -> None:
    """Pretrain, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--tasks', nargs='+', choices=evaluate.TASKS, default=list(evaluate.TASKS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--train', type=int, default=1000, help='labelled training images')
    parser.add_argument('--val', type=int, default=1000, help='images to score on')
    parser.add_argument('--work-dir', default='work_dirs/downstream', help='where runs, data and checkpoints go')
    parser.add_argument('--dry-run', action='store_true', help='print the table and write it nowhere else')
    args = parser.parse_args()
    work_dir = Path(args.work_dir).resolve()
    data = work_dir / f'data_{args.train}_{args.val}'
    draw(data, args.train, args.val)
    checkpoint = pretrain(work_dir / 'pretraining')
    # Trainings this small use one core best, so two run at a time.
    options = ['--data-root', str(data), '--work-dir', str(work_dir / 'evaluation'), '--jobs', '2']
    evaluate.main([f'ebm={checkpoint}', *options, '--tasks', *args.tasks, '--seeds', *map(str, args.seeds)])
    if args.dry_run:
        return

    rows = json.loads((work_dir / 'evaluation' / 'results.json').read_text())
    write_rows(RESULTS / 'downstream.json', [row | dict(device=hardware()) | stamp() for row in rows])
    seconds = float((work_dir / 'pretraining' / 'seconds.txt').read_text())
    caption = (
        f'Pretrained for {seconds / 60:.1f} minutes; {args.train} labelled images to train on, {args.val} to score on; '
        f'mean and standard deviation of {len(args.seeds)} seeds, in percent; {hardware()}, {stamp()["date"]}:'
    )
    replace_between_marks(REPOSITORY / 'README.md', 'downstream', f'{caption}\n\n{evaluate.markdown(rows)}'.rstrip())


if __name__ == '__main__':
    main()
