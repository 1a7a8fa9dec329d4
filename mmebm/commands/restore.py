"""``mmebm-restore``: what a model makes of images, step by step, as a picture or an animation."""

import argparse
from collections.abc import Sequence
from itertools import islice

from mmebm.commands.model_arguments import add_model_arguments, make_restorer, run_or_exit
from mmebm.launch.command_line import expanded, path

STILL = ('.png', '.jpg', '.pdf', '.svg')
ENDINGS = (*STILL, '.webp')

# In place of a name, for images that are damaged already.
AS_GIVEN = 'none'


def main(argv: Sequence[str] | None = None) -> None:
    """Restore and draw; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: restore(args))


def restore(args: argparse.Namespace) -> None:
    """Write the picture or the animation."""
    from mmebm.apis.tables import check_ending
    from mmebm.models.selfsup.ebm import EBMAlgorithm
    from mmebm.visualization.descents import animate, draw_steps

    check_ending(args.out, ENDINGS)
    if args.limit < 1:
        raise ValueError(f'--limit must be at least 1, not {args.limit}')
    restorer = make_restorer(args)
    corruption = args.corruption
    if corruption is None and isinstance(restorer.model, EBMAlgorithm):
        corruption = next(iter(restorer.corruptions), AS_GIVEN)
    corruption = None if corruption == AS_GIVEN else corruption
    descents = list(islice(restorer.restore(args.images, corruption, args.steps, progress=False), args.limit))
    (animate if args.out.suffix == '.webp' else draw_steps)(descents, args.out)
    for one in descents:
        energies = '' if one.energies is None else f': energy {one.energies[0]:.4g} -> {one.energies[-1]:.4g}'
        print(f'{one.source}{energies}')
    print(f'Wrote {args.out}')


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-restore', description='Draw how images are restored, step by step.')
    add = parser.add_argument
    add('images', nargs='+', type=expanded, help='files or folders')
    add_model_arguments(parser)
    what = (
        "one of the config's corruptions; else a transform with its defaults: mask, sort, sr, denoise, color, or a "
        'type, as GaussianNoise; '
        f"{AS_GIVEN}: as given (default: the config's first)"
    )
    add('--corruption', metavar='NAME', help=what)
    add('--steps', type=int, metavar='K', help='of gradient descent (default: as in training)')
    add('--limit', type=int, default=8, metavar='N', help='of images (default: %(default)s)')
    out = f'by ending a picture ({", ".join(STILL)}) or an animation (.webp) (default: %(default)s)'
    add('--out', type=path, default='restored.png', metavar='FILE', help=out)
    return parser


if __name__ == '__main__':
    main()
