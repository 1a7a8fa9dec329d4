"""What benchmarks/step_time.py has measured, and what follows for a step that is planned; without it, a guess."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmebm.model_building import type_name
from mmebm.planning.config_facts import step_options
from mmebm.planning.gpus import GPUS

# The part of a GPU's peak that a step is guessed to reach where none was measured. Not a measurement.
ASSUMED_EFFICIENCY = 0.3


@dataclass(frozen=True)
class Speed:
    """How fast training is.

    Attributes:
        images_per_second: Of one device.
        source: Where the figure is from.
        efficiency: The part of the matrix rate that is reached; None if that is not known for the precision.
        is_guess: Whether nothing was measured.
    """

    images_per_second: float
    source: str
    efficiency: float | None = None
    is_guess: bool = False


def variants_of(cfg: Config) -> tuple[str, ...]:
    """What the benchmark calls the way in which a config computes its step, and ways that are as efficient."""
    step = step_options(cfg)
    if type_name(cfg.model) == 'CIM':
        return ('cim',)
    if type_name(cfg.model) == 'PatchEBM':
        return ('ebm-patches' if step.get('compile') else f'ebm-patches{_suffix(step)}',)
    if step.get('compile'):
        return ('ebm-compiled', 'ebm-token-dropping') if cfg.model.get('token_dropping') else ('ebm-compiled',)
    return (f'ebm{_suffix(step)}',)


def _suffix(step: dict) -> str:
    if step.get('low_memory'):
        return '-low-memory'
    return '-recomputed-attention' if step.get('attention') == 'recomputed' else '-eager'


def measurements(folder: Path, on_gpu: bool, precision: str) -> list[dict]:
    """The rows of benchmarks/step_time.py in a precision; none if it has not been run."""
    path = folder / f'step_time_{"gpu" if on_gpu else "cpu"}.json'
    rows = json.loads(path.read_text()) if path.is_file() else []
    return [row for row in rows if row['precision'] == precision]


def measured_speed(
    rows: Sequence[dict], gpu: str, precision: str, variants: Sequence[str], gflops: float
) -> Speed | None:
    """Speed at the efficiency that was measured for the step nearest in arithmetic; None if none was.

    Args:
        rows: Measurements in the precision.
        gpu: One of ``GPUS``, or ``cpu``, whatever CPU was measured.
        precision: Of the step that is planned.
        variants: Of the benchmark, as efficient as that step.
        gflops: Per image of that step.
    """
    name = '' if gpu == 'cpu' else rf'\b{GPUS[gpu].name}\b'
    found = [row for row in rows if row['variant'] in variants and re.search(name, row['device'])]
    row = _nearest(found, gflops)
    if row is None:
        return None
    rate = row['images_per_second'] * row['gflops_per_image']  # GFLOP/s
    has_rate = gpu != 'cpu' and precision in ('bf16', 'fp16')
    setting = f'{row["backbone"]}, {row["image_size"]} px, batch {row["batch"]}'
    return Speed(
        rate / gflops,
        source=f'{rate / 1e3:.3g} TFLOP/s as measured with {setting} on {row["device"]}',
        efficiency=rate / 1e3 / GPUS[gpu].matrix_rate if has_rate else None,
    )


def guessed_speed(gpu: str, precision: str, gflops: float) -> Speed | None:
    """Speed at ``ASSUMED_EFFICIENCY``; None for ``cpu``, whose peak is not known.

    Args:
        gpu: One of ``GPUS``, or ``cpu``.
        precision: Of the step that is planned.
        gflops: Per image of that step.
    """
    if gpu == 'cpu':
        return None
    rate = GPUS[gpu].rate(precision)
    source = f'a guess: {ASSUMED_EFFICIENCY:.0%} of the peak in {precision}, {rate:g} TFLOP/s'
    return Speed(ASSUMED_EFFICIENCY * rate * 1e3 / gflops, source, is_guess=True)


def compiled_memory_ratio(rows: Sequence[dict], variant: str, gflops: float) -> float | None:
    """Memory of a compiled variant as a part of the eager one's, for the nearest step that was measured as both."""
    setting = ('device', 'backbone', 'image_size', 'batch')
    eager_variant = f'{variant.removesuffix("-compiled")}-eager'
    eager = {tuple(row[key] for key in setting): row for row in rows if row['variant'] == eager_variant}
    compiled = [row for row in rows if row['variant'] == variant and tuple(row[key] for key in setting) in eager]
    row = _nearest(compiled, gflops)
    if row is None:
        return None
    return row['peak_memory_ratio'] / eager[tuple(row[key] for key in setting)]['peak_memory_ratio']


def _nearest(rows: Sequence[dict], gflops: float) -> dict | None:
    return min(rows, key=lambda row: abs(math.log(row['gflops_per_image'] / gflops)), default=None)
