"""The report as a page: what the template needs, and the file."""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import mmebm
from mmebm.report.charts import charts
from mmebm.report.pictures import galleries, spread
from mmebm.report.run import Run, find_run
from mmebm.report.settings import base_of, settings_that_differ
from mmebm.report.summary import lacks, row, verdict

SECTIONS = dict(progress='Progress', training='Training', speed='Throughput and memory')
MAX_HISTOGRAMS = 20  # steps of a run


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write one HTML file about one or several trainings; it refers to nothing outside itself.

    Args:
        folders: Work dirs.
        out: The file; its folder is made.

    Raises:
        FileNotFoundError: A folder holds no training.
    """
    names = short_names(folders)
    runs = [find_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(runs), encoding='utf-8')


def render(runs: Sequence[Run]) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader('mmebm.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['value'] = value_text
    make_comparable(runs)
    files = resources.files('mmebm.report')
    return environment.get_template('page.html.j2').render(
        runs=runs,
        rows=[row(run) for run in runs],
        verdicts=[verdict(run) for run in runs],
        lacks=[list(lacks(run)) for run in runs],
        bases=[base_of(run) for run in runs],
        differing=settings_that_differ(runs),
        tables=[list(run.tables) for run in runs],
        sections=SECTIONS,
        style=files.joinpath('page.css').read_text(encoding='utf-8'),
        script=files.joinpath('page.js').read_text(encoding='utf-8'),
        data=as_json(dict(charts=charts(runs), galleries=galleries(runs), energies=energies(runs))),
        version=mmebm.__version__,
        date=datetime.now().strftime('%Y-%m-%d %H:%M'),
    )


def make_comparable(runs: Sequence[Run]) -> None:
    """Leave out what ``RestorationProgressHook`` measured unless all runs have it: they may have other images."""
    evaluations = [run.curves['evaluation'] for run in runs]
    if all(any(name.startswith('held_out/') for name in curves) for curves in evaluations):
        return
    for curves in evaluations:
        if any(name.startswith('restoration/') for name in curves):
            for name in [name for name in curves if name.startswith('held_out/')]:
                del curves[name]


def energies(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """By run and corruption, the energies of clean and corrupted images at each step."""
    shown = []
    for run in runs:
        entries = spread(run.restorations, MAX_HISTOGRAMS)
        for name in dict.fromkeys(name for entry in entries for name in entry['corruptions']):
            of_name = [(entry, entry['corruptions'].get(name, {})) for entry in entries]
            steps = [
                dict(step=entry['step'], unit=entry['unit'])
                | {kind: [*filter(math.isfinite, group[kind])] for kind in ('clean', 'corrupted')}
                for entry, group in of_name
                if 'clean' in group
            ]
            if steps:
                shown.append(dict(run=run.name, corruption=name, steps=steps))
    return shown


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f'the same folder twice: {", ".join(map(str, folders))}')


def as_json(data: Any) -> str:
    """Data for a script element: nothing in it ends the element."""
    return json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')


def value_text(value: Any) -> str:
    """A value of a config as it is typed; a dash if it is not set."""
    return '–' if value is None else repr(value)
