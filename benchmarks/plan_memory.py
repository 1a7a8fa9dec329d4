"""How well ``tools/plan.py`` foresees the memory of a training run, on the CPU in float32.

    python benchmarks/plan_memory.py

Each setting trains two steps in a process of its own, whose resident size is compared with the plan's peak. The table
goes to the terminal; with ``--json`` it goes to a file too.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from _memory import MALLOC_SETTINGS, peak_memory
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from rich.console import Console
from rich.table import Table

from mmebm.commands._config import find_config
from mmebm.commands._step_cost import build_model, step_cost

# Config, side of the images in pixels, images in a batch, and what else differs from the config. Peaks above 500 MB, so
# that what libraries hold for themselves counts little.
SETTINGS = {
    'ViT-S': ('ebm_vit-s_in1k', 112, 16, {}),
    'ViT-S, two steps': ('ebm_vit-s_in1k', 112, 16, {'model.num_steps': 2}),
    'ViT-S, micro_batch': ('ebm_vit-s_in1k', 112, 32, {'model.micro_batch': 8}),
    'ViT-S, low_memory': ('ebm_vit-s_in1k', 112, 32, {'model.low_memory': True}),
    'ViT-S, partial': ('ebm_vit-s_in1k', 112, 32, {'model.partial': dict(patch_size=16, visible=0.25, corrupted=0.25)}),
    'ViT-S, recomputed attention': ('ebm_vit-s_in1k', 112, 16, {'model.attention': 'recomputed'}),
    'ViT-S, accumulating': ('ebm_vit-s_in1k', 64, 16, {'optim_wrapper.accumulative_counts': 2}),
    'Swin-B': ('ebm_swin-b_in1k', 224, 2, {}),
    'ConvNeXt-T': ('ebm_convnext-t_in1k', 112, 8, {}),
    'ResNet-50': ('ebm_resnet50_in1k', 112, 8, {}),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and compare; ``--help`` lists the flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('settings', nargs='*', metavar='SETTING', help=f'of {list(SETTINGS)}; all if none is given')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the table as a list of rows')
    parser.add_argument('--measure', choices=SETTINGS, help=argparse.SUPPRESS)  # what the subprocesses do
    args = parser.parse_args(argv)
    if unknown := set(args.settings) - set(SETTINGS):
        parser.error(f'unknown settings {sorted(unknown)}; choose from {list(SETTINGS)}')
    if args.measure:
        print(measured(args.measure))
        return

    rows = []
    for name in args.settings or SETTINGS:
        cfg, side = setting(name)
        planned = step_cost(cfg, (side, side), torch.float32, on_gpu=False).peak
        rows.append(dict(setting=name, planned_mib=planned / 2**20, measured_mib=measure_elsewhere(name) / 2**20))
        print(f'{name}: planned {rows[-1]["planned_mib"]:.0f} MiB, measured {rows[-1]["measured_mib"]:.0f} MiB')
    table = Table(title='Peak memory of a training run')
    for column in ('setting', 'planned (MiB)', 'measured (MiB)', 'planned / measured'):
        table.add_column(column, justify='left' if column == 'setting' else 'right')
    for row in rows:
        planned, seen = row['planned_mib'], row['measured_mib']
        table.add_row(row['setting'], f'{planned:.0f}', f'{seen:.0f}', f'{planned / seen:.3f}')
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + '\n')


def setting(name: str) -> tuple[Config, int]:
    """The config of a setting, and the side of its images."""
    config, side, batch_size, options = SETTINGS[name]
    cfg = Config.fromfile(find_config(config))
    cfg.merge_from_dict({'train_dataloader.batch_size': batch_size, **options})
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = side
    return cfg, side


def measure_elsewhere(name: str) -> int:
    """``measured`` in a fresh process, with an allocator that gives back what is freed."""
    command = [sys.executable, __file__, '--measure', name]
    done = subprocess.run(command, env=os.environ | MALLOC_SETTINGS, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def measured(name: str) -> int:
    """Bytes that two training steps hold at their peak, with model and optimiser."""
    cfg, side = setting(name)
    training(cfg, side, batch_size=1)()  # loads what is loaded at first use
    return peak_memory(training(cfg, side, cfg.train_dataloader.batch_size), device='cpu')


def training(cfg: Config, side: int, batch_size: int) -> Callable[[], None]:
    """A function that builds everything and trains as many steps as let all memory be in use."""

    def train() -> None:
        model = build_model(cfg)
        wrapper = {name: cfg.optim_wrapper[name] for name in ('optimizer', 'paramwise_cfg')}
        wrapper['accumulative_counts'] = cfg.optim_wrapper.get('accumulative_counts', 1)
        optim_wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **wrapper))
        num_steps = 2 * optim_wrapper._accumulative_counts
        optim_wrapper.initialize_count_status(model, 0, num_steps)
        views = torch.randint(256, (2, batch_size, 3, side, side), dtype=torch.uint8)
        for _ in range(num_steps):
            model.train_step(dict(inputs=[*views], data_samples=None), optim_wrapper)

    return train


if __name__ == '__main__':
    main()
