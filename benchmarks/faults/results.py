"""The file of all rows: a script replaces its own and keeps the others."""

import json
from pathlib import Path
from typing import Any

from benchmarks.output import RESULTS
from mmebm.experiments.results import stamp

PATH = RESULTS / 'faults.json'


def write_row(key: str, row: dict[str, Any], path: Path = PATH) -> None:
    """Write one row, such as ``dict(tried=50, bitwise_equal=50)``, with the commit and date of this run.

    ``commit`` and ``date`` at the top of the file are those of the row written last.

    Args:
        key: Name of the row.
        row: Its figures.
        path: The file; other rows in it are kept.
    """
    rows = json.loads(path.read_text()) if path.is_file() else {}
    now = {name: value for name, value in stamp().items() if name in ('commit', 'date')}
    rows = {name: value for name, value in rows.items() if name not in now} | {key: row | now} | now
    path.write_text(json.dumps(rows, indent=2) + '\n')
