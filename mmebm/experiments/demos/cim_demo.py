"""The demo of corrupted image modelling: trains a tokenizer, then both kinds of enhancer, and shows what they see."""

import json
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from mmebm.config_files import find_config
from mmebm.experiments.demos.demo_runner import frozen_accuracies, make_runner
from mmebm.experiments.results import hardware, stamp
from mmebm.model_building import build_initialized
from mmebm.visualization import plot_restorations

TOKENIZER = 'tokenizers/vqvae_shapes'
CONFIGS = dict(respix='cim-respix_vit-t_shapes', revdet='cim-revdet_vit-t_shapes')
ROWS = ('clean', 'masked', 'corrupted', 'restored', 'replaced_map', 'detected_map')


def run_cim_demo(work_dir: Path, seed: int) -> None:
    """Train, test, draw, and print what came out.

    Args:
        work_dir: For picture, figures and checkpoints.
        seed: Of initial weights, order of the images and masks.
    """
    start = time.time()
    print('Trains a tokenizer, then generator and enhancer by ResPix and by RevDet, on Shapes.', flush=True)
    checkpoint = train_tokenizer(work_dir / 'tokenizer', seed)
    runners = {task: train(task, checkpoint, work_dir / task, seed) for task in CONFIGS}
    metrics = {task: runner.test() for task, runner in runners.items()}
    samples = {f'{task}, held-out images': predictions(runner) for task, runner in runners.items()}
    plot_restorations(samples, work_dir / 'corrupted.png', ROWS)
    summary = summarize(metrics, untrained_auroc(runners['revdet'])) | dict(
        frozen_respix=frozen_accuracies(runners['respix']),
        frozen_revdet=frozen_accuracies(runners['revdet']),
        minutes=round((time.time() - start) / 60, 1),
        cpu_minutes=round(time.process_time() / 60, 1),
        seed=seed,
        hardware=hardware(),
        **stamp(),
    )
    (work_dir / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    print_summary(summary, work_dir)


def train_tokenizer(work_dir: Path, seed: int) -> Path:
    """Train the tokenizer; its last checkpoint."""
    cfg = Config.fromfile(find_config(TOKENIZER))
    make_runner(cfg, work_dir, seed).train()
    return Path((work_dir / 'last_checkpoint').read_text())


def train(task: str, tokenizer: Path, work_dir: Path, seed: int, options: Mapping[str, Any] | None = None) -> Runner:
    """Train generator and enhancer with the tokenizer of a checkpoint.

    Args:
        task: ``respix`` or ``revdet``.
        tokenizer: The checkpoint.
        work_dir: For log and checkpoints.
        seed: Of initial weights, order of the images and masks.
        options: Of the config, by dotted key.
    """
    cfg = Config.fromfile(find_config(CONFIGS[task]))
    cfg.model.tokenizer.model.init_cfg.checkpoint = str(tokenizer)
    cfg.merge_from_dict(dict(options or {}))
    runner = make_runner(cfg, work_dir, seed)
    runner.train()
    return runner


def predictions(runner: Runner, num_images: int = 8) -> list[DataSample]:
    """Of the first test images."""
    return runner.model.test_step(default_collate(list(islice(runner.test_dataloader.dataset, num_images))))


def untrained_auroc(runner: Runner) -> float:
    """AUROC of an enhancer with initial weights, on the test images as the trained generator has corrupted them."""
    initial, model = build_initialized(runner.cfg), runner.model
    model.backbone, model.head = initial.backbone, initial.head
    return runner.test()['tokens/all/detection_auroc']


def summarize(metrics: dict[str, dict[str, float]], auroc_untrained: float) -> dict[str, float]:
    """What was reached on held-out images; of the generators of both trainings, that of RevDet."""
    respix, revdet = metrics['respix'], metrics['revdet']
    summary = dict(
        respix_psnr_corrupted_db=respix['restoration/all/psnr_corrupted_db'],
        respix_psnr_output_db=respix['restoration/all/psnr_restored_db'],
        revdet_auroc=revdet['tokens/all/detection_auroc'],
        revdet_auroc_untrained=auroc_untrained,
        generator_token_accuracy=revdet['tokens/all/generator_accuracy'],
        most_frequent_token_share=revdet['tokens/all/most_frequent_token_share'],
        replaced_share=revdet['tokens/all/replaced_share'],
    )
    return {name: round(float(value), 4) for name, value in summary.items()}


def print_summary(summary: dict, work_dir: Path) -> None:
    """Print the summary as a table, and where to look."""
    table = Table('1,000 held-out images', '', title='Corrupted image modelling')
    table.columns[1].justify = 'right'
    before, after = summary['respix_psnr_corrupted_db'], summary['respix_psnr_output_db']
    rows = {
        'ResPix: PSNR of the corrupted image': f'{before:.2f} dB',
        'ResPix: PSNR of the output': f'{after:.2f} dB ({after - before:+.2f})',
        'RevDet: AUROC of replaced tokens': f'{summary["revdet_auroc"]:.3f}',
        'RevDet: the same, enhancer untrained': f'{summary["revdet_auroc_untrained"]:.3f}',
        'generator: accuracy of masked tokens': f'{summary["generator_token_accuracy"]:.1%}',
        'share of the most frequent token': f'{summary["most_frequent_token_share"]:.1%}',
    }
    for task in CONFIGS:
        frozen = summary[f'frozen_{task}']
        rows[f'linear probe, {task} (random weights)'] = (
            f'{frozen["linear_top1"]:.1f}% ({frozen["linear_top1_random_init"]:.1f}%)'
        )
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    console.print(table)
    console.print(
        f'{summary["minutes"]:.1f} minutes in all. Look at {work_dir / "corrupted.png"}; the figures are in '
        f'{work_dir / "summary.json"}.',
        soft_wrap=True,
    )
