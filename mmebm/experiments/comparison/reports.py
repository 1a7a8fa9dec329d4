"""The files of a comparison's work dir: rows and tables from the figures of its trainings."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmebm.experiments.comparison.paired import paired_rows, paired_table
from mmebm.experiments.comparison.settings import Comparison
from mmebm.experiments.comparison.tables import AXES, plot, progress, table
from mmebm.experiments.results import write_rows

NOTE = (
    'Exact McNemar tests against `{}`, image by image. "Right alone" counts, over all seeds, the images that the '
    'method alone and that the reference alone classifies right. The seeds share their images, so that each has a p '
    'value, and all together have none:'
)


def kind_of(comparison: Comparison) -> str:
    """``select``, ``final`` or ``compare``: what the figures of a work dir are scored on."""
    return 'select' if comparison.select else 'final' if comparison.final else 'compare'


def check_kind(comparison: Comparison, work_dir: Path) -> None:
    """Check that a work dir is new, or holds figures of the same kind.

    Raises:
        ValueError: It holds others, which would be mixed with the new ones.
    """
    found = [kind for kind in ('select', 'final') if (work_dir / f'{kind}.py').exists()]
    if not found and (work_dir / 'compare.json').exists():
        found = ['compare']
    if found and found != [kind_of(comparison)]:
        what = dict(select='a selection', final='final figures', compare='a comparison on a test folder')[found[0]]
        raise ValueError(f'--work-dir {work_dir} holds {what}; give another one')


def read_points(work_dir: Path, methods: Sequence[str]) -> list[dict]:
    """The rows of all points, by method, seed, learning rate and epoch."""
    rows = read_all(work_dir, methods, 'point_*.json')
    return sorted(
        rows, key=lambda row: (methods.index(row['method']), row['seed'], row.get('learning_rate') or 0, row['epoch'])
    )


def read_all(work_dir: Path, methods: Sequence[str], pattern: str) -> list[dict]:
    """The contents of the files of a kind that the trainings of each method have left, in the methods' order."""
    paths = [path for method in methods for path in sorted((work_dir / method).glob(f'**/seed_*/{pattern}'))]
    return [json.loads(path.read_text()) for path in paths]


def write_report(work_dir: Path, methods: Sequence[str], trained: Sequence[str], reference: str) -> None:
    """Write ``compare.json``, ``compare.md`` and plots; where the correctness of images is known, ``paired.json``.

    Args:
        work_dir: Of the comparison.
        methods: In the order of the table.
        trained: Names of the configs that train something before fine-tuning, whose cost is shown.
        reference: The method that the others are tested against.
    """
    rows = read_points(work_dir, methods)
    files = {name: work_dir / name / 'cost.json' for name in trained}
    costs = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    write_rows(work_dir / 'compare.json', rows)
    text = f'{table(rows, costs)}\n\nAlong the run:\n\n{progress(rows)}\n'
    paired = paired_rows(read_all(work_dir, methods, 'held_out_*.json'), reference)
    if paired:
        write_rows(work_dir / 'paired.json', paired)
        text += f'\n{NOTE.format(reference)}\n\n{paired_table(paired)}\n'
    (work_dir / 'compare.md').write_text(text)
    for axis in AXES:
        plot(rows, axis).savefig(work_dir / f'compare_{AXES[axis].lower()}.png', dpi=110)
