"""What the benchmarks write: rows of JSON with date, commit and hardware, and tables of Markdown."""

import datetime
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent / 'results'
REPOSITORY = Path(__file__).resolve().parents[1]


def hardware(device: str = 'cpu') -> str:
    """The GPU's name; or the CPU's, with the cores that this process may use."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    models = [line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')]
    name = models[0].split(':', 1)[1].strip() if models else 'unknown CPU'
    return f'{name}, {len(os.sched_getaffinity(0))} cores'


def stamp() -> dict[str, str]:
    """Commit and date; a ``+`` behind the commit says that the working tree differed from it."""
    git = ['git', '-C', str(REPOSITORY)]
    commit = subprocess.run([*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(
        [*git, 'status', '--porcelain', '--untracked-files=no', '--', 'mmebm', 'configs', 'benchmarks/*.py'],
        capture_output=True,
        text=True,
    ).stdout
    return dict(commit=(commit or 'unknown') + ('+' if changed else ''), date=datetime.date.today().isoformat())


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """Write rows as a JSON list, one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [columns, ['---', *['--:'] * (len(columns) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def replace_between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a file.

    Raises:
        ValueError: The file lacks the marks.
    """
    content = path.read_text()
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    if content.count(start) != 1 or content.count(end) != 1:
        raise ValueError(f'{path} needs one {start} and one {end}')
    head, rest = content.split(start)
    _, tail = rest.split(end)
    path.write_text(f'{head}{start}\n{text}\n{end}{tail}')
