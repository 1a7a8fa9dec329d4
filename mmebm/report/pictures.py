"""Pictures of restorations over a run, small enough for one file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmebm.report.run import Run
from mmebm.visualization.restoration_sheet import take_apart

MAX_SIDE = 160  # pixels
MAX_PICTURES = 600  # of a report; photographs of the largest size take some 9 kB each, as text
FIXED = ('clean', 'corrupted', 'masked', 'replaced_map')  # the same at every step, so kept once


def galleries(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """By run and corruption, its images with their pictures over time.

    Each gallery has ``steps`` and ``images``; an image maps a picture's name to one data URI for each step, or to a
    single one if it never changes. Where there are too many, steps in between are left out, evenly.
    """
    shown = []
    for run in runs:
        entries = spread(run.restorations, steps_shown(runs))
        names = dict.fromkeys(name for entry in entries for name in entry['corruptions'])
        for name in names:
            of_name = [entry for entry in entries if name in entry['corruptions']]
            sheets = [sheet(entry['folder'], entry['corruptions'][name]) for entry in of_name]
            shown_at = [(entry, rows) for entry, rows in zip(of_name, sheets, strict=True) if rows]
            if shown_at:
                steps, images = [entry['step'] for entry, _ in shown_at], _over_time([rows for _, rows in shown_at])
                unit, source = (shown_at[-1][0].get(key, '') for key in ('unit', 'source'))
                shown.append(dict(run=run.name, corruption=name, unit=unit, steps=steps, images=images, source=source))
    return shown


def steps_shown(runs: Sequence[Run]) -> int:
    """How many steps of each run a report has room for, at least two."""
    a_step = sum(
        group['rows'] * sum(column not in FIXED for column in group['columns'])
        for run in runs
        for group in (run.restorations[-1]['corruptions'].values() if run.restorations else [])
    )
    return max(2, MAX_PICTURES // max(a_step, 1))


def spread(entries: Sequence[Any], number: int) -> list[Any]:
    """That many of the entries, evenly, with the first and the last one; all if there are fewer."""
    if len(entries) <= number:
        return list(entries)
    return [entries[index] for index in np.linspace(0, len(entries) - 1, number).round().astype(int)]


def sheet(folder: Path, group: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The pictures of a sheet, by image and name; none if the file is not there or is broken."""
    try:
        with Image.open(folder / group['picture']) as picture:
            pixels = np.asarray(picture.convert('RGB'))
    except OSError:
        return []
    return take_apart(pixels, group['rows'], group['columns'])


def data_uri(pixels: np.ndarray) -> str:
    """A picture (H, W, 3), uint8, as a data URI, at most 160 pixels wide and high."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    if max(picture.size) <= 64:  # a few pixels, which compression would blur
        picture.save(buffer, 'WEBP', lossless=True)
    else:
        picture.save(buffer, 'WEBP', quality=80)
    return f'data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def _over_time(sheets: Sequence[list[dict[str, np.ndarray]]]) -> list[dict[str, list[str]]]:
    columns = dict.fromkeys(name for rows in sheets for row in rows for name in row)
    images = []
    for index in range(min(map(len, sheets))):
        rows = [sheet[index] for sheet in sheets]
        shown = {name: [row for row in rows if name in row] for name in columns}
        images.append(
            {
                name: [data_uri(row[name]) for row in (having[-1:] if name in FIXED else having)]
                for name, having in shown.items()
            }
        )
    return images
