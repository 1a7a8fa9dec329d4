"""``mmebm-app``: a page on this machine that shows what a model restores."""

import argparse
from collections.abc import Sequence

from mmebm.commands.model_arguments import make_restorer, run_or_exit
from mmebm.launch.command_line import path, port


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: serve(args))


def serve(args: argparse.Namespace) -> None:
    """Load the model and serve the page until interrupted."""
    from mmebm.app.explorer import Explorer
    from mmebm.app.page import launch  # first, as it says what to install

    explorer = Explorer(make_restorer(args))
    launch(
        explorer,
        explorer.examples(args.images),
        f'{type(explorer.restorer.model).__name__}, {args.checkpoint}',
        args.port,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-app', description=__doc__.partition(': ')[2])
    add = parser.add_argument
    add('checkpoint', type=path, metavar='CHECKPOINT', help='of a pretraining')
    add('--config', help="that it was trained with, a path or the name of one of mmebm's "
        '(default: the one that the checkpoint names)')  # fmt: skip
    add('--images', type=path, metavar='FOLDER', help='of images to pick from')
    add('--port', type=port, metavar='N', help='default: the first free one from 7860')
    add('--device', help='such as cuda:1 (default: a GPU if there is one)')
    parser.set_defaults(batch_size=1)
    return parser
