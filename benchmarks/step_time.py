"""Time, memory and arithmetic of a training step, beside those of MAE, SimMIM and BEiT.

    python -m benchmarks.step_time                   the settings of this machine (CPU or GPU), all variants
    python -m benchmarks.step_time --settings vit-tiny-p4-32 --variants forward ebm mae --rounds 7

A step is the forward and the backward passes, without data loading and optimiser. All variants of a setting are timed
in turn, round by round, in one process; the figure is the median. Memory is measured in a process of its own: the
step's peak above what lies there between steps, gradients included. FLOPs are those of matrix products by torch's
formulas, two per multiply-add. Writes ``results/step_time_{cpu,gpu}.json``, a table beside it, and that table into
``docs/speed.md``.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from benchmarks.memory import MALLOC_SETTINGS, peak_memory
from benchmarks.output import REPOSITORY, RESULTS, replace_between_marks
from benchmarks.step_variants import (
    AUTOCAST,
    PATCHES,
    PEERS,
    SETTINGS,
    Setting,
    build_ebm,
    ebm_variants,
    make_batch,
    make_step,
)
from mmebm.experiments.results import hardware, markdown_table, read_rows, stamp, write_rows
from mmebm.planning.step_cost import OpCounter


def count_flops(variant: str, setting: Setting) -> int:
    """FLOPs per image, two per multiply-add; of the arithmetic, however it is compiled."""
    setting = setting._replace(precision='fp32')
    size = 4 if variant == 'ebm-micro-batch' else 1
    step = make_step(variant, setting._replace(batch=size), make_batch(setting, size, 'cpu'), may_compile=False)
    step()  # the first step of some variants checks itself
    with OpCounter() as counter:
        step()
    return counter.flops // size


def time_in_turn(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each step, timed in turn."""
    seconds = {variant: [] for variant in steps}
    for round_ in range(rounds + 1):
        for variant, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if round_:  # the first compiles, calibrates and warms up
                seconds[variant].append(time.perf_counter() - start)
        print(f'  round {round_} of {rounds}', file=sys.stderr, flush=True)
    return {variant: statistics.median(values) for variant, values in seconds.items()}


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def measure_peaks(variants: Sequence[str], name: str, setting: Setting) -> dict[str, int]:
    """Peak bytes of each variant's step, from a process whose memory can be read."""
    command = [sys.executable, '-m', 'benchmarks.step_time', '--settings', name, '--precision', setting.precision]
    command += ['--batch', str(setting.batch), '--peaks-of', *variants]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | MALLOC_SETTINGS, stdout=subprocess.PIPE, text=True
    )
    if result.returncode:
        raise RuntimeError(f'{" ".join(command)} failed')
    return json.loads(result.stdout.splitlines()[-1])


def peaks_here(variants: Sequence[str], setting: Setting, device: str) -> dict[str, int]:
    """Peak bytes of each variant's step; the first step, which compiles and calibrates, does not count."""
    peaks = {}
    for variant in variants:
        step = make_step(variant, setting, make_batch(setting, setting.batch, device))
        step()
        peaks[variant] = peak_memory(step, device)
        print(f'  memory of {variant}', file=sys.stderr, flush=True)
    return peaks


def matrix_rate(device: str, precision: str) -> float:
    """FLOP/s of a large matrix product in the setting's precision: the most that the device can do."""
    size = 8192 if device == 'cuda' else 2048
    dtype = AUTOCAST[precision] or torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / time_in_turn({'matmul': lambda: a @ b}, 5, device)['matmul']


def measure(name: str, setting: Setting, variants: list[str], rounds: int, device: str) -> list[dict]:
    """One row per variant."""
    print(f'{name}: {setting.precision}, batch {setting.batch}', file=sys.stderr, flush=True)
    torch.set_float32_matmul_precision('high' if setting.precision == 'tf32' else 'highest')
    torch.backends.cudnn.allow_tf32 = setting.precision == 'tf32'
    batch = make_batch(setting, setting.batch, device)
    # Where the shipped config is one of the other variants, it is not measured twice.
    same = 'ebm-compiled' if build_ebm(setting, {}).training_step.compile else 'ebm-eager'
    to_time = [variant for variant in variants if not (variant == 'ebm' and same in variants)]
    seconds = time_in_turn({variant: make_step(variant, setting, batch) for variant in to_time}, rounds, device)
    peaks = measure_peaks(to_time, name, setting)
    flops = {variant: count_flops(variant, setting) for variant in to_time}
    rate = matrix_rate(device, setting.precision)
    if 'ebm' in variants:
        for figures in (seconds, peaks, flops):
            figures.setdefault('ebm', figures.get(same))
    return [
        dict(
            device=hardware(device),
            setting=name,
            backbone='swin-base' if variant == 'simmim' else setting.arch,
            image_size=192 if variant == 'simmim' else setting.image_size,
            batch=setting.batch,
            precision=setting.precision,
            variant=variant,
            seconds=round(seconds[variant], 5),
            forwards=round(seconds[variant] / seconds['forward'], 3),
            flop_forwards=round(flops[variant] / flops['forward'], 3),
            mae_ratio=round(seconds[variant] / seconds['mae'], 3),
            peak_memory_mib=round(peaks[variant] / 2**20, 1),
            peak_memory_ratio=round(peaks[variant] / peaks['supervised'], 3),
            images_per_second=round(setting.batch / seconds[variant], 2),
            gflops_per_image=round(flops[variant] / 1e9, 3),
            matrix_rate_share=round(flops[variant] * setting.batch / seconds[variant] / rate, 3),
            torch=torch.__version__,
            **stamp(),
        )
        for variant in variants
    ]


def setting_of(row: dict) -> tuple:
    """What the rows of one setting have in common."""
    return row['device'], row['setting'], row['precision'], row['batch']


def with_earlier_settings(path: Path, rows: list[dict]) -> list[dict]:
    """The rows, behind those of settings that were measured earlier and not now."""
    measured = {setting_of(row) for row in rows}
    return [row for row in read_rows(path) if setting_of(row) not in measured] + rows


def report(rows: list[dict]) -> str:
    """The rows as Markdown, a table per setting."""
    columns = [
        'step',
        'seconds',
        'forwards',
        'by FLOPs',
        'x MAE',
        'peak memory x supervised',
        'images/s',
        'GFLOP per image',
    ]
    tables = []
    for key in dict.fromkeys(map(setting_of, rows)):
        chosen = [row for row in rows if setting_of(row) == key]
        first = chosen[0]
        tables.append(
            f'{first["backbone"]}, {first["image_size"]} px, {first["precision"]}, batch {first["batch"]}, on '
            f'{first["device"]} (torch {first["torch"]}, commit {first["commit"]}, {first["date"]}):\n'
        )
        tables.append(
            markdown_table(
                columns,
                [
                    [
                        f'`{row["variant"]}`' + (' (Swin-B, 192 px)' if row['variant'] == 'simmim' else ''),
                        f'{row["seconds"]:.3g}',
                        f'{row["forwards"]:.2f}',
                        f'{row["flop_forwards"]:.2f}',
                        f'{row["mae_ratio"]:.2f}',
                        f'{row["peak_memory_ratio"]:.2f}',
                        f'{row["images_per_second"]:.1f}',
                        f'{row["gflops_per_image"]:.3g}',
                    ]
                    for row in chosen
                ],
            )
        )
        tables.append('')
    return '\n'.join(tables).rstrip()


def main() -> None:
    """Measure, write and report."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--settings', nargs='+', choices=SETTINGS[device], default=list(SETTINGS[device]))
    parser.add_argument('--variants', nargs='+', help='default: all; forward, supervised and mae are always measured')
    parser.add_argument('--rounds', type=int, default=5, help='after one that warms up')
    parser.add_argument('--precision', choices=AUTOCAST, help="in place of the settings' own")
    parser.add_argument('--batch', type=int, help="in place of the settings' own")
    parser.add_argument('--dry-run', action='store_true', help='print the table and write nothing')
    parser.add_argument('--peaks-of', nargs='+', help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    MMLogger.get_instance('step_time', log_level=logging.ERROR)
    init_default_scope('mmpretrain')
    changes = {key: value for key, value in dict(precision=args.precision, batch=args.batch).items() if value}
    settings = {name: SETTINGS[device][name]._replace(**changes) for name in args.settings}
    if args.peaks_of:
        print(json.dumps(peaks_here(args.peaks_of, settings[args.settings[0]], device)))
        return
    rows = []
    for name, setting in settings.items():
        known = ['forward', PATCHES, *PEERS, *ebm_variants(setting)]
        if setting.image_size < 192:
            known.remove('simmim')  # at this size its Swin has no grid left
        wanted = {'forward', 'supervised', 'mae', *(args.variants or known)}
        rows += measure(name, setting, [variant for variant in known if variant in wanted], args.rounds, device)
    target = RESULTS / f'step_time_{"gpu" if device == "cuda" else "cpu"}'
    if not args.dry_run:
        rows = with_earlier_settings(target.with_suffix('.json'), rows)
    text = report(rows)
    print(text)
    if args.dry_run:
        return
    write_rows(target.with_suffix('.json'), rows)
    target.with_suffix('.md').write_text(text + '\n')
    replace_between_marks(REPOSITORY / 'docs' / 'speed.md', target.name, text)


if __name__ == '__main__':
    main()
