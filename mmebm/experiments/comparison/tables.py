"""Results of a comparison of methods, as tables and plots.

Its rows are those of ``compare.json``: one per method, seed and epoch.
"""

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from mmebm.experiments.results import markdown_table, mean_and_std, mean_and_std_text, mean_text

RANDOM = 'random'
QUALITIES = {'knn_top1': 'kNN', 'linear_top1': 'linear probe', 'finetune_top1': 'fine-tuned'}
COSTS = {'gflops_per_image': '.3g', 'peak_memory_mib': '.0f'}  # and how the table shows them
AXES = {'epoch': 'epochs', 'seconds': 'seconds', 'gflops': 'GFLOPs'}


def values(rows: Sequence[dict], method: str, epoch: int, quality: str) -> list[float]:
    """A quality of a method at an epoch, one value per seed for which it was measured."""
    chosen = [row for row in rows if (row['method'], row['epoch']) == (method, epoch)]
    return [row[quality] for row in chosen if row[quality] is not None]


def curve(rows: Sequence[dict], method: str, axis: str, quality: str) -> list[tuple[float, float, float]]:
    """A method's points: mean over seeds on the axis, mean and standard deviation of the quality."""
    points = []
    for epoch in sorted({row['epoch'] for row in rows if row['method'] == method}):
        chosen = [row for row in rows if (row['method'], row['epoch']) == (method, epoch) and row[quality] is not None]
        if chosen:
            x = statistics.mean(row[axis] for row in chosen)
            points.append((x, *mean_and_std([row[quality] for row in chosen])))
    return points


def table(rows: Sequence[dict], costs: dict[str, dict]) -> str:
    """Each method's quality at the end, and the cost of its steps, as Markdown."""
    with_cpu = any('cpu_seconds' in row for row in rows)  # earlier rows have none
    lines = []
    for method in dict.fromkeys([*(row['method'] for row in rows), *costs]):
        of_method = [row for row in rows if row['method'] == method]
        last = [row for row in of_method if row['epoch'] == max(row['epoch'] for row in of_method)]
        cost = costs.get(method, {})
        speeds = [row['gflops'] / row['seconds'] / cost['gflops_per_image'] for row in last if cost]
        qualities = ([row[quality] for row in last if row[quality] is not None] for quality in QUALITIES)
        cpu = [row['cpu_seconds'] for row in last if row.get('cpu_seconds') is not None]
        lines.append(
            [
                f'`{method}`',
                mean_text([row['epoch'] for row in last], '.0f'),
                mean_text([row['seconds'] for row in last], '.0f'),
                *([mean_text(cpu, '.0f')] if with_cpu else []),
                mean_text(speeds, '.1f'),
                *(mean_text([cost[key]] if cost else [], spec) for key, spec in COSTS.items()),
                *map(mean_and_std_text, qualities),
            ]
        )
    times = ['seconds', 'CPU seconds'] if with_cpu else ['seconds']
    columns = ['method', 'epochs', *times, 'images/s', 'GFLOP per image', 'peak MiB', *QUALITIES.values()]
    return markdown_table(columns, lines)


def progress(rows: Sequence[dict]) -> str:
    """Each quality of each method at every epoch where it was measured, as Markdown."""
    rows = [row for row in rows if row['method'] != RANDOM]
    epochs = sorted({row['epoch'] for row in rows})
    lines = []
    for quality, name in QUALITIES.items():
        for method in dict.fromkeys(row['method'] for row in rows):
            cells = (mean_and_std_text(values(rows, method, epoch, quality)) for epoch in epochs)
            lines.append([f'{name}, `{method}`', *cells])
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
