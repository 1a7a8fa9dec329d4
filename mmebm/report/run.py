"""What a training has left in its work dir."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

RECORD = 'restorations.json'  # of RestorationProgressHook
TABLES = ('results.md', 'compare.md', 'summary.json')
ENVIRONMENT = re.compile(r'System environment:\n(.*?)\n-{20,}', re.DOTALL)

Points = list[tuple[float, float]]  # step and value


@dataclass
class Run:
    """A training: the folder, and those below it that its processes have left, one for each time it was started."""

    name: str
    folder: Path
    starts: list[Path]

    @cached_property
    def cfg(self) -> Config | None:
        """The config of the last start, as it was run; None if it was not written."""
        file = self._last('vis_data/config.py')
        return None if file is None else Config.fromfile(file, import_custom_modules=False)

    @cached_property
    def curves(self) -> dict[str, dict[str, Points]]:
        """Scalars by axis, ``iteration`` of training or ``evaluation`` (epochs, or iterations), and by name.

        From its first step on, a later start takes the place of earlier ones: a resumed training repeats some steps,
        and one that began anew has no part in the others.
        """
        found: dict[str, dict[str, dict[float, float]]] = {
            axis: defaultdict(dict) for axis in ('iteration', 'evaluation')
        }
        for start in self.starts:
            lines = [*_of_steps(start / 'vis_data' / 'scalars.json')]
            values = [*_values(lines)]
            has_trained = any('iter' in line for line in lines)
            for axis, curves in found.items() if has_trained else ():
                begin = min((step for at, _, step, _ in values if at == axis), default=math.inf)
                for name, points in curves.items():
                    curves[name] = {step: value for step, value in points.items() if step < begin}
            for axis, name, step, value in values:
                found[axis][name][step] = value
        return {
            axis: {name: sorted(points.items()) for name, points in curves.items()} for axis, curves in found.items()
        }

    @cached_property
    def restorations(self) -> list[dict[str, Any]]:
        """The entries of ``RestorationProgressHook``, one a step, each with the ``folder`` of its pictures."""
        by_step: dict[float, dict[str, Any]] = {}
        for start in self.starts:
            entries = [*_of_steps(start / 'vis_data' / RECORD)]
            if entries:  # as of curves
                by_step = {step: entry for step, entry in by_step.items() if step < entries[0]['step']}
            for entry in entries:
                by_step[entry['step']] = entry | dict(folder=start / 'vis_data' / 'vis_image')
        return [by_step[step] for step in sorted(by_step)]

    @cached_property
    def environment(self) -> dict[str, str]:
        """What the log of the last start says of machine and packages; empty if there is no log."""
        logs = [log for start in self.starts for log in sorted(start.glob('*.log'))]
        found = ENVIRONMENT.search(logs[-1].read_text(errors='replace')) if logs else None
        rows = re.findall(r'^    ([^:\n]+): (.*)$', found[1], re.MULTILINE) if found else []
        return {name: value for name, value in rows if 'compiling' not in name}

    @property
    def is_by_iteration(self) -> bool:
        """Whether the training is measured by iterations, not epochs."""
        return self.cfg is not None and 'max_iters' in (self.cfg.get('train_cfg') or {})

    @property
    def position(self) -> tuple[str, int]:
        """``epoch`` or ``iteration``, and the last one in the log."""
        last: tuple[str, int] = ('iteration', 0)
        for line in self._lines('scalars.json'):
            if 'iter' in line:
                last = ('epoch', line['epoch']) if 'epoch' in line else ('iteration', line['iter'])
        return last

    @property
    def tables(self) -> Iterator[tuple[str, str]]:
        """Tables that other commands have left in the work dir or one folder below, by their place."""
        for name in TABLES:
            for file in sorted([*self.folder.glob(name), *self.folder.glob(f'*/{name}')]):
                yield str(file.relative_to(self.folder)), file.read_text(errors='replace')

    def _last(self, name: str) -> Path | None:
        return next((start / name for start in reversed(self.starts) if (start / name).is_file()), None)

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        for start in self.starts:
            yield from _of_steps(start / 'vis_data' / name)


def find_run(folder: Path, name: str) -> Run:
    """The training in a work dir.

    Raises:
        FileNotFoundError: There is none; names those that are further below, as of a comparison.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; give the work dir of a training')
    starts = sorted(path.parents[1] for path in folder.glob('*/vis_data/scalars.json'))
    if starts:
        return Run(name, folder, starts)
    if (folder / 'vis_data' / 'scalars.json').is_file():
        return Run(name, folder, [folder])
    below = sorted({path.parents[2] for path in folder.glob('*/**/vis_data/scalars.json')})
    hint = f' Trainings are in {", ".join(map(str, below[:5]))}.' if below else ''
    raise FileNotFoundError(
        f'{folder}: no training has left its log here, TIME/vis_data/scalars.json, which mmengine writes with '
        f"dict(type='LocalVisBackend') in vis_backends.{hint}"
    )


def _values(lines: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, float, float]]:
    """Axis, name, step and value of each finite number in the lines of a log."""
    for line in lines:
        axis = 'iteration' if 'iter' in line else 'evaluation'
        for name, value in line.items():
            if name not in ('step', 'iter', 'epoch') and isinstance(value, (int, float)) and math.isfinite(value):
                yield axis, name, line['step'], value


def _of_steps(file: Path) -> Iterator[dict[str, Any]]:
    return (row for row in json_lines(file) if 'step' in row)


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file, objects; that of a training that runs, or was killed, may end in half a one."""
    for line in file.read_text(errors='replace').splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row
