"""``mmebm-compare``: pretraining methods on equal terms, quality of features against epochs, seconds and FLOPs.

    python tools/compare.py --data FOLDER --budget epochs=30
    python tools/compare.py --data shapes --methods ebm mae random --budget seconds=600 --seeds 1
    python tools/compare.py --data shapes --methods ebm mae random --quick

FOLDER holds ``train/`` and ``test/`` or ``val/``, in each one folder per class. Leaves ``compare.json``, ``compare.md``
and three plots in ``--work-dir``; called again, it resumes. Before the first training, it estimates the time of all of
them. ``mmebm/experiments/comparison/comparison.py`` says what is measured.

For figures that nothing was chosen by, choose on ``train/`` alone, then score on images that are scored only here:

    python tools/compare.py --data FOLDER --select --learning-rates 1e-3 2e-3 4e-3 --work-dir CHOSEN
    python tools/compare.py --data FOLDER --final HELD_OUT --selection CHOSEN --work-dir FINAL

The first leaves ``selection.json`` and ``selection.md``, the second adds paired tests: ``paired.json``.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmebm.experiments.comparison.comparison import Bench
from mmebm.experiments.comparison.estimate import estimates, print_estimate
from mmebm.experiments.comparison.quick import DEFAULTS, MAX_IMAGES
from mmebm.experiments.comparison.settings import METHODS, RANDOM, Comparison, known_methods
from mmebm.experiments.processes import ending_together
from mmebm.launch.command_line import OptionAction, expanded, path
from mmebm.output_files import locked


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, and write the results after every training; ``--help`` lists the flags."""
    startup = time.process_time()  # of imports, as in each training's process
    parser = make_parser()
    if parser.parse_args(argv).quick:
        parser.set_defaults(**DEFAULTS)  # what is given on the command line still counts
    comparison = Comparison(**vars(parser.parse_args(argv)))
    MMLogger.get_instance('compare', log_level='WARNING')  # every initialised weight is an INFO
    init_default_scope('mmpretrain')
    failed = []
    try:
        bench = Bench(comparison)
        print_estimate([*estimates(bench, startup)], comparison.seeds)
        with locked(comparison.work_dir), ending_together():
            for failure in bench.run_all():
                failed.append(failure)
                print(failure, file=sys.stderr)
    except (OSError, TypeError, ValueError, KeyError) as error:
        parser.error(str(error))
    print((comparison.work_dir / ('selection.md' if comparison.select else 'compare.md')).read_text())
    if failed:
        sys.exit('\n'.join(['Failed:', *failed]))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog='mmebm-compare', description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('--data', type=expanded, required=True, help='a folder of images, or: shapes')
    add('--methods', nargs='+', choices=[*known_methods(), RANDOM], default=METHODS, help='in this order')
    add('--backbone', default='vit-w128', help='of the configs: vit-w128, vit-w128-d12, convnext-w32')
    add('--budget', default='epochs=30', help='of each training: epochs=N, seconds=S, cpu-seconds=S or flops=F')
    add('--seeds', type=int, default=3, help='trainings of each method')
    add('--points', type=int, default=4, help='evaluations of the frozen features along a run')
    add('--finetune-points', type=int, default=1, help='how many of these, the last ones, fine-tune as well')
    add('--images', type=int, help='number of training images (default: all)')
    short = f'a first look: one epoch of at most {MAX_IMAGES} images, one seed, short fine-tuning, nothing compiled'
    add('--quick', action='store_true', help=short)
    add('--work-dir', type=path, default='work_dirs/compare', help='where everything goes')
    add('--select', action='store_true', help='choose learning rates on train/ alone; no test folder is opened')
    add('--learning-rates', nargs='+', type=float, default=[], help='with --select: to choose from')
    add('--final', type=expanded, metavar='HELD_OUT', help='score on this folder, with one folder per class')
    add('--selection', type=path, help='with --final: the work dir of --select, for its learning rates')
    add('--first-seed', type=int, help='of --seeds in a row (default: 100 with --final, else 0)')
    add('--reference', help='with --final: the method that the others are tested against (default: the first)')
    add('--cfg-options', nargs='+', action=OptionAction, default={}, metavar='METHOD.KEY=VALUE', help='of one config')
    return parser


if __name__ == '__main__':
    main()
