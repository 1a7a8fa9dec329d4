"""``mmebm-demo``: pretrains a small backbone on the embedded data set, and shows what it restores and learned."""

import argparse
from collections.abc import Sequence

from mmebm.experiments.demo import run_demo
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test, draw; ``--help`` lists the flags."""
    run_demo(**vars(make_parser().parse_args(argv)))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-demo', description=__doc__.partition(': ')[2])
    parser.add_argument('--config', default='ebm_vit-t_shapes', help='a config with the evaluators of ebm_vit-t_shapes')
    parser.add_argument('--work-dir', type=path, default='work_dirs/demo', help='for pictures, figures and checkpoint')
    parser.add_argument('--seed', type=int, default=0, help='of initial weights, order of the images and corruptions')
    return parser
