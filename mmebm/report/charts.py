"""Which curves are drawn together, in which order and under which words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmebm.report.run import Points, Run

MAX_POINTS = 400


@dataclass(frozen=True)
class Kind:
    """Curves that belong together: those whose names match ``pattern``, whose groups are their labels."""

    section: str
    title: str
    pattern: str
    axis: str = 'evaluation'
    unit: str = ''
    is_log: bool = False
    note: str = ''


# What stands before the name of a corruption, of an AUROC of the energies of patches.
OF_PATCHES = r'(?:held_out(?=/[^/]+/token_auroc)|token_energy(?=/[^/]+/auroc))'

KINDS = (
    Kind('progress', 'Restoration',
         r'(?:held_out|restoration)/(.+)/(psnr_restored_db|psnr_corrupted_db)', unit='dB',
         note='Restored images, solid, should rise above the corrupted ones, dashed.'),
    Kind('progress', 'Linear probe and kNN on frozen features', r'frozen/(.*top1.*)', unit='%',
         note='The value at 0 is that of random weights; what stays below it was not learned.'),
    Kind('progress', 'Energy: AUROC of corrupted against clean images', r'(?:held_out|energy)/(.+)/auroc',
         note='1: every corrupted image has more energy than every clean one. 0.5: chance.'),
    Kind('progress', 'Energies of patches: AUROC of corrupted against other ones',
         rf'{OF_PATCHES}/(.+)/(?:token_)?auroc',
         note='1: the corrupted patches of all images have more energy than the others. 0.5: chance.'),
    Kind('progress', 'Replaced tokens', r'(?:held_out|tokens)/(.+)/(detection_auroc|generator_accuracy)'),
    Kind('progress', 'Effective dimensions of features, without labels', r'frozen/(rankme|lidar)',
         note='Compare runs of one method only; it is no substitute for a probe.'),
    Kind('progress', 'Decay of the spectrum of features, without labels', r'frozen/(alpha_req)',
         note='Compare runs of one method only; it is no substitute for a probe.'),
    Kind('progress', 'Frozen features', r'frozen/((?!.*top1|rankme|lidar|alpha_req).*)'),
    Kind('training', 'Training loss', r'(loss.*|.*_loss)', 'iteration', is_log=True,
         note='It does not say whether anything is learned; the curves under Progress do.'),
    Kind('training', 'Error left by one restoration', r'(objective_ratio|error_ratio)', 'iteration',
         note='1: nothing is restored, 0: all.'),
    Kind('training', 'Mean energy of a batch', r'energy_(clean|corrupted|restored)', 'iteration'),
    Kind('training', 'Learning rate', r'(lr)', 'iteration'),
    Kind('training', 'Gradient norm', r'(grad_norm)', 'iteration', is_log=True),
    Kind('training', 'Step size', r'(step_size)', 'iteration'),
    Kind('speed', 'Time of an iteration, and of its data', r'(time|data_time)', 'iteration', unit='s'),
    Kind('speed', 'Memory', r'(memory)', 'iteration', unit='MiB'),
)  # fmt: skip
SILENT = r'base_lr|.*time|.*/(ssim_|energy_|pair_).*|.*/(token_)?corrupted_share'  # left out


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Charts of the curves that the runs have; with several runs, one for each curve, in which a run is a line."""
    drawn = []
    for kind in KINDS:
        lines = {run.name: _matches(kind, run) for run in runs}
        drawn += _one_run(kind, lines) if len(runs) == 1 else _several_runs(kind, lines)
    drawn += _others(runs)
    unit = 'iteration' if all(run.is_by_iteration for run in runs) else 'epoch'
    return [spec | dict(axis=spec['axis'].replace('evaluation', unit)) for spec in drawn]


def _matches(kind: Kind, run: Run) -> dict[tuple[str, ...], Points]:
    """By labels, a curve's points; ``RestorationProgressHook``'s images come before the validation set."""
    found: dict[tuple[str, ...], Points] = {}
    for name, points in sorted(run.curves[kind.axis].items(), key=lambda item: not item[0].startswith('held_out')):
        match = re.fullmatch(kind.pattern, name)
        if match:
            found.setdefault(match.groups(), points)
    return found


def _one_run(kind: Kind, lines: dict[str, dict]) -> list[dict[str, Any]]:
    (found,) = lines.values()
    series = [_line(labels, points, labels[0]) for labels, points in sorted(found.items())]
    return [_chart(kind, kind.title, series)] if series else []


def _several_runs(kind: Kind, lines: dict[str, dict]) -> list[dict[str, Any]]:
    drawn = []
    for first in sorted({labels[0] for found in lines.values() for labels in found}):
        series = [
            _line((run, *labels[1:]), points, run)
            for run, found in lines.items()
            for labels, points in sorted(found.items())
            if labels[0] == first
        ]
        drawn.append(_chart(kind, f'{kind.title}: {first}', series))
    return drawn


def _others(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A chart for each curve that no kind names."""
    drawn = []
    for axis in ('evaluation', 'iteration'):
        known = re.compile('|'.join([*(kind.pattern for kind in KINDS if kind.axis == axis), SILENT]))
        names = {name for run in runs for name in run.curves[axis]}
        for name in sorted(name for name in names if not known.fullmatch(name)):
            series = [_line((run.name,), run.curves[axis][name], run.name) for run in runs if name in run.curves[axis]]
            drawn.append(_chart(Kind('training', name, '', axis), name, series))
    return drawn


def _line(labels: tuple[str, ...], points: Points, color: str) -> dict[str, Any]:
    dashed = labels[-1] == 'psnr_corrupted_db'
    shown = [label for label in labels if not label.startswith('psnr_')]
    return dict(label=' '.join(shown), color=color, dashed=dashed, points=thinned(points))


def _chart(kind: Kind, title: str, series: list[dict]) -> dict[str, Any]:
    words = dict(section=kind.section, title=title, unit=kind.unit, log=kind.is_log, note=kind.note, axis=kind.axis)
    return words | dict(series=series)


def thinned(points: Points) -> Points:
    """At most 400 points: means of neighbours, at the last one's step."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(group[-1][0], float(f'{sum(value for _, value in group) / len(group):.6g}')) for group in groups]
