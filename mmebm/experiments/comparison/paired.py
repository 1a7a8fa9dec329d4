"""Paired comparison of methods on the same images: McNemar's test.

Its records are the files ``held_out_N.json``, one per method, seed and epoch: ``method``, ``seed``, ``epoch``, the
paths of ``images``, and whether each is classified right, 0 or 1, in ``correct``, by quality.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from mmebm.experiments.comparison.tables import QUALITIES
from mmebm.experiments.results import markdown_table, mean_and_std_text


class Discordant(NamedTuple):
    """Images that one of two methods alone classifies right."""

    better: int
    worse: int

    @property
    def p(self) -> float:
        """Of the exact, two-sided test that either is as probable; 1 where there are none."""
        number = self.better + self.worse
        return float(binomtest(self.better, number, 0.5).pvalue) if number else 1.0


def discordant(correct: Sequence[int], reference: Sequence[int]) -> Discordant:
    """Count the images which a method alone, and which the reference alone, classifies right.

    Args:
        correct: Of the method, one 0 or 1 per image.
        reference: Of the reference, on the same images.
    """
    pairs = [*zip(correct, reference, strict=True)]
    return Discordant(pairs.count((1, 0)), pairs.count((0, 1)))


def paired_rows(records: Sequence[dict], reference: str) -> list[dict]:
    """Each method against the reference, seed by seed: at each epoch that both have, and at the last of each.

    Returns:
        Rows with ``method``, ``epoch``, ``reference``, ``reference_epoch``, ``quality``; lists with one entry per seed:
        ``seeds``, ``top1`` and ``reference_top1`` in percent, ``better``, ``worse``, ``p``; and the sums
        ``pooled_better`` and ``pooled_worse``.

    Raises:
        ValueError: Two records are of other images.
    """
    methods = dict.fromkeys(record['method'] for record in records)
    return [
        row
        for method in methods
        if method != reference and reference in methods
        for epoch, other in paired_epochs(records, method, reference)
        for quality in QUALITIES
        for row in _row(records, (method, epoch), (reference, other), quality)
    ]


def paired_epochs(records: Sequence[dict], method: str, reference: str) -> list[tuple[int, int]]:
    """Epochs of a method and of the reference that are compared."""
    of_method, others = ({rec['epoch'] for rec in records if rec['method'] == name} for name in (method, reference))
    pairs = [(epoch, epoch) for epoch in sorted(of_method & others)]
    return [*dict.fromkeys([*pairs, (max(of_method), max(others))])]


def _row(records: Sequence[dict], method: tuple[str, int], reference: tuple[str, int], quality: str) -> Iterator[dict]:
    """The row of a quality, unless no seed has it of both."""
    found, others = (
        {
            record['seed']: record
            for record in records
            if (record['method'], record['epoch']) == name and quality in record['correct']
        }
        for name in (method, reference)
    )
    seeds = sorted(found.keys() & others.keys())
    if not seeds:
        return
    for seed in seeds:
        if found[seed]['images'] != others[seed]['images']:
            raise ValueError(f'{method[0]} and {reference[0]}, seed {seed}: scored on other images')
    correct = [(found[seed]['correct'][quality], others[seed]['correct'][quality]) for seed in seeds]
    counts = [discordant(*pair) for pair in correct]
    yield dict(
        method=method[0],
        epoch=method[1],
        reference=reference[0],
        reference_epoch=reference[1],
        quality=quality,
        seeds=seeds,
        top1=[_percent(own) for own, _ in correct],
        reference_top1=[_percent(other) for _, other in correct],
        better=[count.better for count in counts],
        worse=[count.worse for count in counts],
        p=[count.p for count in counts],
        pooled_better=sum(count.better for count in counts),
        pooled_worse=sum(count.worse for count in counts),
    )


def paired_table(rows: Sequence[dict]) -> str:
    """Rows of ``paired_rows`` as Markdown."""
    lines = []
    for row in rows:
        differences = [own - other for own, other in zip(row['top1'], row['reference_top1'], strict=True)]
        lines.append(
            [
                f'{QUALITIES[row["quality"]]}, `{row["method"]}` after {row["epoch"]}, '
                f'`{row["reference"]}` after {row["reference_epoch"]}',
                *map(mean_and_std_text, (row['top1'], row['reference_top1'], differences)),
                f'{row["pooled_better"]} : {row["pooled_worse"]}',
                ', '.join(f'{p:.2g}' for p in row['p']),
            ]
        )
    columns = ['top-1 (%), epochs', 'method', 'reference', 'difference', 'right alone', 'p of each seed']
    return markdown_table(columns, lines)


def _percent(correct: Sequence[int]) -> float:
    return round(100 * sum(correct) / len(correct), 3)
