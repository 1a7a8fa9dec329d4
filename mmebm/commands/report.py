"""``mmebm-report``: one self-contained HTML file about one or several trainings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmebm.launch.command_line import path
from mmebm.report import write_report


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    out: Path = args.out or args.work_dirs[0] / 'report.html'
    try:
        write_report(args.work_dirs, out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f'{out} ({out.stat().st_size / 1e6:.1f} MB)')


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='mmebm-report', description=__doc__.partition(': ')[2])
    parser.add_argument(
        'work_dirs', type=path, nargs='+', metavar='WORK_DIR', help='of a training; several are compared'
    )
    parser.add_argument('--out', type=path, metavar='FILE', help='default: report.html in the first work dir')
    return parser
