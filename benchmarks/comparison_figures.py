"""Figures of the comparison on CIFAR-10, drawn from the committed rows ``results/compare_cifar10*.json``.

    python -m benchmarks.comparison_figures

Writes ``results/compare_cifar10{,_12_blocks}_{epochs,seconds,gflops}.png``, quality along the trainings of 16 epochs,
and ``results/compare_cifar10_schedules.png``, quality at the ends of schedules of different lengths.
"""

import argparse
from pathlib import Path

from benchmarks.output import RESULTS
from mmebm.experiments.comparison.tables import AXES, RANDOM, plot
from mmebm.experiments.results import read_rows

# Their other seeds ran on another machine, so that their seconds are not comparable.
ONE_SEED_OF_SECONDS = ('simmim', 'beit', 'maskfeat')
SCHEDULES = (4, 8, 16, 32)  # epochs
SCHEDULED = ('ebm-patches', 'ebm-patches-whitened', 'mae', 'mae-whitened', RANDOM)


def along_the_runs(name: str, axis: str) -> list[dict]:
    """Rows of a file whose points are comparable along an axis."""
    rows = read_rows(RESULTS / f'{name}.json')
    if axis != 'seconds':
        return rows
    return [row for row in rows if row['seed'] == 0 or row['method'] not in ONE_SEED_OF_SECONDS]


def ends_of_schedules() -> list[dict]:
    """The last rows of trainings of each length, and those of random weights, method by method."""
    rows = []
    for epochs in SCHEDULES:
        name = 'compare_cifar10' if epochs == 16 else f'compare_cifar10_{epochs}_epochs'
        rows += [row for row in read_rows(RESULTS / f'{name}.json') if row['epoch'] in (epochs, 0)]
    return [row for method in SCHEDULED for row in rows if row['method'] == method]


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--folder', type=Path, default=RESULTS, help='where to write them')
    folder = parser.parse_args().folder
    for name in ('compare_cifar10', 'compare_cifar10_12_blocks'):
        for axis, title in AXES.items():
            plot(along_the_runs(name, axis), axis).savefig(folder / f'{name}_{title.lower()}.png', dpi=110)
    plot(ends_of_schedules(), 'epoch').savefig(folder / 'compare_cifar10_schedules.png', dpi=110)


if __name__ == '__main__':
    main()
