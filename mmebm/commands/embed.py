"""``mmebm-embed``: features of all images of a folder, from the backbone without masks, with their paths."""

import argparse
from collections.abc import Sequence

from mmebm.commands.model_arguments import add_model_arguments, make_restorer, run_or_exit
from mmebm.error_text import counted
from mmebm.launch.command_line import expanded, path


def main(argv: Sequence[str] | None = None) -> None:
    """Embed; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: embed(args))


def embed(args: argparse.Namespace) -> None:
    """Write the features."""
    from mmebm.apis.tables import FEATURES, check_ending, pandas, write_about, write_features

    check_ending(args.out, FEATURES)
    if args.out.suffix == '.parquet':
        pandas()
    restorer = make_restorer(args)
    written = write_features(restorer.features(args.folder, args.layer), args.out)
    about = write_about(args.out, restorer, layer=args.layer)
    print(f'{counted(written.images, "image")}, {written.width} features each')
    if restorer.skipped:
        print(f'Skipped {counted(len(restorer.skipped), "broken file")}, named in {about}')
    for file in written.files:
        print(f'Wrote {file}')


def layer(text: str) -> int | str:
    """A number of a block, or a module's name."""
    return int(text) if text.removeprefix('-').isdigit() else text


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-embed', description='Write the features of all images of a folder.')
    parser.add_argument('folder', type=expanded, help='of images, nested or not')
    add_model_arguments(parser)
    out = 'by ending .npy, with the paths in a text file beside it, or .parquet (default: %(default)s)'
    parser.add_argument('--out', type=path, default='features.npy', metavar='FILE', help=out)
    deeper = (
        'a block of the backbone by its number, from the end if negative, or a module by its name (default: the end)'
    )
    parser.add_argument('--layer', type=layer, help=deeper)
    return parser


if __name__ == '__main__':
    main()
