"""``mmebm-energy``: ranks the images of a folder by their energy; higher = less like the training images."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmebm.commands.model_arguments import add_model_arguments, make_restorer, run_or_exit
from mmebm.error_text import counted, printable
from mmebm.launch.command_line import expanded, path


def main(argv: Sequence[str] | None = None) -> None:
    """Rank; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: rank(args))


def rank(args: argparse.Namespace) -> None:
    """Write the table, and print its ends."""
    from mmebm.apis.results import POLARITY
    from mmebm.apis.tables import TABLES, check_ending, energy_table, pandas, write_about, write_table

    pandas()  # before an hour is lost
    check_ending(args.out, TABLES)
    if args.show < 1:
        raise ValueError(f'--show must be at least 1, not {args.show}')
    restorer = make_restorer(args)
    frame = energy_table(restorer.energy(args.folder, maps=False))
    write_table(frame, args.out)
    about = write_about(args.out, restorer)
    print(f'{counted(len(frame), "image")}; {POLARITY}')
    if restorer.skipped:
        print(f'Skipped {counted(len(restorer.skipped), "broken file")}, named in {about}')
    console = Console(markup=False)  # a path may hold brackets
    for title, part in (('highest', frame.head(args.show)), ('lowest', frame.tail(args.show)[::-1])):
        table = Table(title=f'The {title} energies')
        for column in frame.columns:
            table.add_column(column, justify='left' if column == 'path' else 'right', overflow='fold')
        for row in part.itertuples(index=False):
            table.add_row(printable(row.path), f'{row.energy:.4g}', f'{row.percentile:.1f}', f'{row.z:.2f}')
        console.print(table)
    print(f'Wrote {args.out}')


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-energy', description='Rank the images of a folder by their energy.')
    parser.add_argument('folder', type=expanded, help='of images, nested or not')
    add_model_arguments(parser)
    out = 'table of path, energy, percentile and z, by ending .csv or .parquet (default: %(default)s)'
    parser.add_argument('--out', type=path, default='energies.csv', metavar='FILE', help=out)
    parser.add_argument('--show', type=int, default=10, metavar='N', help='how many of each end are printed')
    return parser


if __name__ == '__main__':
    main()
