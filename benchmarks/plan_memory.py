"""Predicted and measured memory of training runs: how accurate ``tools/plan.py`` is.

    python -m benchmarks.plan_memory                     on the CPU, in float32
    python -m benchmarks.plan_memory --device cuda       on a GPU, in the configs' precision

Each setting trains two steps in a process of its own, whose peak is compared with the plan's: of the resident size on
the CPU, of what torch has allocated on a GPU. Writes ``results/plan_memory_{cpu,gpu}.json``.
"""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

from benchmarks.memory import MALLOC_SETTINGS, peak_memory
from benchmarks.output import REPOSITORY, RESULTS
from mmebm.config_files import find_config
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows
from mmebm.launch.machine import adapt_to_cpu
from mmebm.planning.config_facts import autocast_type, precision_name
from mmebm.planning.step_cost import build_model, step_cost

# Config, side of the images in pixels, images in a batch, and what else differs from the config. Peaks above 500 MB, so
# that what libraries hold for themselves counts little.
QUARTERS = dict(patch_size=16, visible=0.25, corrupted=0.25)
SETTINGS = {
    'ViT-S': ('ebm-mask_vit-s_in1k', 112, 16, {}),
    'ViT-S, two steps': ('ebm-mask_vit-s_in1k', 112, 16, {'model.num_steps': 2}),
    'ViT-S, micro_batch': ('ebm-mask_vit-s_in1k', 112, 32, {'model.training_step.micro_batch': 8}),
    'ViT-S, low_memory': ('ebm-mask_vit-s_in1k', 112, 32, {'model.training_step.low_memory': True}),
    'ViT-S, token dropping': ('ebm-mask_vit-s_in1k', 112, 32, {'model.token_dropping': QUARTERS}),
    'ViT-S, recomputed attention': ('ebm-mask_vit-s_in1k', 112, 16, {'model.training_step.attention': 'recomputed'}),
    'ViT-S, accumulating': ('ebm-mask_vit-s_in1k', 64, 16, {'optim_wrapper.accumulative_counts': 2}),
    'ViT-S, patches': ('ebm-patches_vit-s_in1k', 224, 32, {}),
    'Swin-B': ('ebm_swin-b_in1k', 224, 2, {}),
    'ConvNeXt-T': ('ebm_convnext-t_in1k', 112, 8, {}),
    'ResNet-50': ('ebm_resnet50_in1k', 112, 8, {}),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, compare and write; ``--help`` lists the flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dry-run', action='store_true', help='print the table and write nothing')
    parser.add_argument('--peak-of', choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    MMLogger.get_instance('plan_memory', log_level='ERROR')
    warnings.filterwarnings('ignore', message='No GPU here')
    if args.peak_of:
        print(measured(args.peak_of, args.device))
        return
    rows = [compare(name, args.device) for name in args.settings]
    columns = ['setting', 'planned (MiB)', 'measured (MiB)', 'planned / measured']
    cells = [
        [row['setting'], f'{row["planned_mib"]:.0f}', f'{row["measured_mib"]:.0f}', f'{row["ratio"]:.3f}']
        for row in rows
    ]
    print(markdown_table(columns, cells))
    if not args.dry_run:
        write_rows(RESULTS / f'plan_memory_{"gpu" if args.device == "cuda" else "cpu"}.json', rows)


def compare(name: str, device: str) -> dict:
    """The row of a setting."""
    cfg, side = setting(name, device)
    dtype, on_gpu = autocast_type(cfg), device == 'cuda'
    planned = step_cost(cfg, (side, side), dtype, on_gpu).peak
    seen = measure_elsewhere(name, device)
    print(f'{name}: {planned / seen:.3f}', file=sys.stderr, flush=True)
    return dict(
        device=hardware(device),
        setting=name,
        config=SETTINGS[name][0],
        image_size=side,
        batch=cfg.train_dataloader.batch_size,
        options=SETTINGS[name][3],
        precision=precision_name(cfg, dtype, on_gpu),
        planned_mib=round(planned / 2**20, 1),
        measured_mib=round(seen / 2**20, 1),
        ratio=round(planned / seen, 3),
        torch=torch.__version__,
        **stamp(),
    )


def setting(name: str, device: str) -> tuple[Config, int]:
    """The config of a setting, and the side of its images in pixels."""
    config, side, batch_size, options = SETTINGS[name]
    cfg = Config.fromfile(find_config(config))
    shrunk = {'train_dataloader.batch_size': batch_size, 'optim_wrapper.accumulative_counts': 1}
    cfg.merge_from_dict(shrunk | options)
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = side
    if device == 'cpu':
        adapt_to_cpu(cfg)
    return cfg, side


def measure_elsewhere(name: str, device: str) -> int:
    """``measured`` in a fresh process, with an allocator that gives back what is freed."""
    command = [sys.executable, '-m', 'benchmarks.plan_memory', '--peak-of', name, '--device', device]
    environment = os.environ | MALLOC_SETTINGS
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def measured(name: str, device: str) -> int:
    """Bytes that training holds at its peak, with model and optimiser."""
    cfg, side = setting(name, device)
    train(cfg, side, batch_size=1, device=device)  # loads what is loaded at first use
    return peak_memory(partial(train, cfg, side, cfg.train_dataloader.batch_size, device), device)


def train(cfg: Config, side: int, batch_size: int, device: str) -> None:
    """Build everything, and train until the weights have changed twice."""
    model = build_model(cfg).to(device)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    num_steps = 2 * cfg.optim_wrapper.accumulative_counts
    optim_wrapper.initialize_count_status(model, 0, num_steps)
    views = torch.randint(256, (model.num_inputs, batch_size, 3, side, side), dtype=torch.uint8)
    for _ in range(num_steps):
        model.train_step(dict(inputs=[*views], data_samples=None), optim_wrapper)


if __name__ == '__main__':
    main()
