"""What experiments leave: rows of JSON with date, commit and hardware, and tables of Markdown."""

import datetime
import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmebm.output_files import write_atomically
from mmebm.provenance import commit


def hardware(device: str = 'cpu') -> str:
    """The GPU's name; or the CPU's, with the cores that this process may use."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    models = [line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')]
    name = models[0].split(':', 1)[1].strip() if models else 'unknown CPU'
    return f'{name}, {len(os.sched_getaffinity(0))} cores'


def stamp() -> dict[str, str]:
    """Commit, as ``mmebm.provenance`` tells it, and date."""
    return dict(commit=commit(), date=datetime.date.today().isoformat())


def read_rows(path: Path) -> list[dict]:
    """Rows that ``write_rows`` has written; none if there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else []


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """Write rows as a JSON list, one row per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ('[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n').encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value whole or not at all: what is there after an interruption counts as done."""
    write_atomically(path, json.dumps(value).encode())


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [columns, ['---', *['--:'] * (len(columns) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN for a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_and_std_text(values: Sequence[float]) -> str:
    """Mean and standard deviation as in tables: a single value stands alone, and a dash for none."""
    if not values:
        return '-'
    mean, std = mean_and_std(values)
    return f'{mean:.1f}' if math.isnan(std) else f'{mean:.1f} ± {std:.1f}'


def mean_text(values: Sequence[float], spec: str) -> str:
    """The mean in a format, or a dash for none."""
    return format(statistics.mean(values), spec) if values else '-'
