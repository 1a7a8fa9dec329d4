"""What a comparison of methods came to, as tables and plots.

Its rows are those of ``compare.json``: one a method, seed and epoch.
"""

import math
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from mmebm.experiments.results import markdown_table

RANDOM = 'random'
QUALITIES = {'knn_top1': 'kNN', 'linear_top1': 'linear probe', 'finetune_top1': 'fine-tuned'}
COSTS = {'gflops_per_image': '.3g', 'peak_memory_mib': '.0f'}  # and how the table shows them
AXES = {'epoch': 'epochs', 'seconds': 'seconds', 'gflops': 'GFLOPs'}


def curve(rows: Sequence[dict], method: str, axis: str, quality: str) -> list[tuple[float, float, float]]:
    """A method's points: mean over seeds on the axis, mean and standard deviation of the quality."""
    points = []
    for epoch in sorted({row['epoch'] for row in rows if row['method'] == method}):
        chosen = [row for row in rows if (row['method'], row['epoch']) == (method, epoch) and row[quality] is not None]
        if chosen:
            mean, spread = mean_and_spread([row[quality] for row in chosen])
            points.append((statistics.mean(row[axis] for row in chosen), mean, spread))
    return points


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_with_spread(point: tuple[float, float, float] | None) -> str:
    """A point of a curve for people; without a spread where there is a single seed."""
    if point is None:
        return '-'
    _, mean, spread = point
    return f'{mean:.1f}' if math.isnan(spread) else f'{mean:.1f} ± {spread:.1f}'


def shown(values: Sequence[float], spec: str) -> str:
    """The mean in a format, or a dash."""
    return format(statistics.mean(values), spec) if values else '-'


def table(rows: Sequence[dict], costs: dict[str, dict]) -> str:
    """What each method has come to in the end, and what its steps cost, as Markdown."""
    lines = []
    for method in dict.fromkeys([*(row['method'] for row in rows), *costs]):
        of_method = [row for row in rows if row['method'] == method]
        last = [row for row in of_method if row['epoch'] == max(row['epoch'] for row in of_method)]
        cost = costs.get(method, {})
        speeds = [row['gflops'] / row['seconds'] / cost['gflops_per_image'] for row in last if cost]
        points = [point for quality in QUALITIES for point in curve(last, method, 'epoch', quality) or [None]]
        lines.append(
            [
                f'`{method}`',
                shown([row['epoch'] for row in last], '.0f'),
                shown([row['seconds'] for row in last], '.0f'),
                shown(speeds, '.1f'),
                *(shown([cost[key]] if cost else [], spec) for key, spec in COSTS.items()),
                *(mean_with_spread(point) for point in points),
            ]
        )
    columns = ['method', 'epochs', 'seconds', 'images/s', 'GFLOP an image', 'peak MiB', *QUALITIES.values()]
    return markdown_table(columns, lines)


def progress(rows: Sequence[dict]) -> str:
    """Each quality of each method at every epoch where it was measured, as Markdown."""
    rows = [row for row in rows if row['method'] != RANDOM]
    epochs = sorted({row['epoch'] for row in rows})
    lines = []
    for quality, name in QUALITIES.items():
        for method in dict.fromkeys(row['method'] for row in rows):
            points = {point[0]: point for point in curve(rows, method, 'epoch', quality)}
            lines.append([f'{name}, `{method}`', *(mean_with_spread(points.get(epoch)) for epoch in epochs)])
    return markdown_table(['top-1 (%) after epoch', *map(str, epochs)], lines)


def plot(rows: Sequence[dict], axis: str) -> Figure:
    """Draw each quality against ``epoch``, ``seconds`` or ``gflops``; random weights are a dotted line.

    Args:
        rows: As in ``compare.json``.
        axis: Which of their columns lies on the horizontal axis.
    """
    figure = Figure(figsize=(14, 4.5), layout='constrained')
    panels = dict(zip(QUALITIES, figure.subplots(1, len(QUALITIES)), strict=True))
    for quality, panel in panels.items():
        for number, method in enumerate(dict.fromkeys(row['method'] for row in rows)):
            points = curve(rows, method, axis, quality)
            color = f'C{number}'
            if method == RANDOM and points:
                panel.axhline(points[0][1], color=color, ls=':', label=method)
            elif points:
                x, mean, spread = zip(*points, strict=True)
                panel.errorbar(x, mean, spread, color=color, marker='.', capsize=2, label=method)
        panel.set(title=QUALITIES[quality], xlabel=AXES[axis], ylabel='top-1 (%)')
    # One for all, beside the panels, where it hides no curve.
    entries = {
        label: handle
        for panel in panels.values()
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc='outside right upper', frameon=False)
    return figure
