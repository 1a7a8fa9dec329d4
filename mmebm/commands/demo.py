"""``mmebm-demo``: pretrains a small backbone on the embedded data set, and shows what it restores and learned."""

import argparse
from collections.abc import Sequence

from mmebm.experiments.demos.cim_demo import run_cim_demo
from mmebm.experiments.demos.demo import demo_config, run_demo
from mmebm.launch.command_line import path

WORK_DIRS = dict(ebm='work_dirs/demo', cim='work_dirs/demo_cim')
CONFIG = 'ebm_vit-t_shapes'


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test, draw; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    work_dir = args.work_dir or path(WORK_DIRS[args.method])
    if args.method == 'ebm':
        try:
            cfg = demo_config(args.config or CONFIG)
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        run_demo(cfg, work_dir, args.seed)
    elif args.config:
        parser.error('--config is of --method ebm; that of cim trains three configs, those of docs/cim.md')
    else:
        run_cim_demo(work_dir, args.seed)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-demo', description=__doc__.partition(': ')[2])
    add = parser.add_argument
    add('--method', choices=[*WORK_DIRS], default='ebm', help='cim: corrupted image modelling, with its tokenizer')
    add('--config', help=f'of --method ebm: a config with the evaluators of {CONFIG}, the default')
    folders = ' or '.join(WORK_DIRS.values())
    add('--work-dir', type=path, help=f'for pictures, figures and checkpoints (default: {folders})')
    add('--seed', type=int, default=0, help='of initial weights, order of the images and corruptions')
    return parser
