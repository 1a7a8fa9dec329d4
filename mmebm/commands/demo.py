"""``mmebm-demo``: pretrains a small backbone on the embedded data set, and shows what it restores and learned."""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from mmebm.launch.options import find_config
from mmebm.visualization import plot_curves, plot_restorations
from mmebm.visualization.figures import scalars

# What pictures and summary are made from, and where a config has it.
NEEDED = {
    'test_dataloader.dataset': ('ConcatDataset',),
    'test_evaluator': ('RestorationMetric', 'EnergyMetric'),
    'custom_hooks': ('FrozenFeatureHook',),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test, draw; ``--help`` lists the flags."""
    parser = argparse.ArgumentParser(prog='mmebm-demo', description=__doc__.partition(': ')[2])
    parser.add_argument('--config', default='ebm_vit-t_shapes', help='a config with the evaluators of ebm_vit-t_shapes')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='where pictures, figures and checkpoint go')
    parser.add_argument('--seed', type=int, default=0, help='of initial weights, order of the images and corruptions')
    args = parser.parse_args(argv)
    start = time.time()

    cfg = Config.fromfile(find_config(args.config))
    check_config(cfg, args.config)
    cfg.work_dir = args.work_dir
    cfg.randomness.seed = args.seed
    runner = Runner.from_cfg(cfg)
    runner.train()
    metrics = runner.test()

    work_dir = Path(args.work_dir)
    plot_restorations(restorations(runner), work_dir / 'restorations.png')
    plot_curves(runner.message_hub, work_dir / 'curves.png')
    summary = summarize(runner, metrics) | dict(wall_clock_s=round(time.time() - start, 1))
    (work_dir / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    print_summary(summary, work_dir)


def check_config(cfg: Config, name: str) -> None:
    """Check that a config measures what is shown: a test set a corruption, the metrics, and frozen features.

    Raises:
        ValueError: It does not; names what it lacks.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    parts = (dataset, cfg.get('test_evaluator'), cfg.get('custom_hooks'))
    for (place, needed), part in zip(NEEDED.items(), parts, strict=True):
        types = [member['type'] for member in ([part] if isinstance(part, dict) else part or [])]
        found = {full.rpartition('.')[2] for full in types}
        missing = [short for short in needed if short not in found]
        if missing:
            raise ValueError(
                f'--config {name}: the demo needs {" and ".join(missing)} in {place}, which has '
                f'{", ".join(map(repr, types)) or "nothing"}; see ebm_vit-t_shapes, which has all that is shown'
            )


def restorations(runner: Runner, num_images: int = 8) -> dict[str, list[DataSample]]:
    """The first test images of each corruption, restored."""
    groups = {}
    for dataset in runner.test_dataloader.dataset.datasets:
        samples = runner.model.test_step(default_collate(list(islice(dataset, num_images))))
        groups[samples[0].corruption] = samples
    return groups


def summarize(runner: Runner, metrics: dict[str, float]) -> dict:
    """What the run reached: speed, restoration and energy of each corruption, and frozen features before and after."""
    seconds = scalars(runner.message_hub, 'train/time')
    corruptions: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        _, corruption, name = key.split('/')
        corruptions.setdefault(corruption, {})[name.replace('auroc', 'energy_auroc').replace('pair', 'energy_pair')] = (
            round(float(value), 4)
        )
    summary = dict(
        images_per_second=round(runner.train_dataloader.batch_size * len(seconds) / float(seconds.sum()), 1),
        corruptions=corruptions,
    )
    for name in ('knn_top1', 'linear_top1'):
        values = scalars(runner.message_hub, f'frozen/{name}')
        summary |= {name: round(float(values[-1]), 2), f'{name}_random_init': round(float(values[0]), 2)}
    return summary


def print_summary(summary: dict, work_dir: Path) -> None:
    """Print the summary as tables, and where to look."""
    restored = Table(title='Held-out images')
    for column in ('corruption', 'PSNR corrupted (dB)', 'PSNR restored (dB)', 'energy: pairs right', 'energy: AUROC'):
        restored.add_column(column, justify='left' if column == 'corruption' else 'right')
    for name, row in summary['corruptions'].items():
        restored.add_row(
            name,
            f'{row["psnr_corrupted_db"]:.2f}',
            f'{row["psnr_restored_db"]:.2f}',
            f'{row["energy_pair_accuracy"]:.3f}',
            f'{row["energy_auroc"]:.3f}',
        )
    frozen = Table(title='Classification by frozen features (top-1, %)')
    for column in ('', 'random initialisation', 'pretrained'):
        frozen.add_column(column, justify='left' if not column else 'right')
    for name, title in (('knn_top1', 'kNN'), ('linear_top1', 'linear probe')):
        frozen.add_row(title, f'{summary[f"{name}_random_init"]:.1f}', f'{summary[name]:.1f}')
    console = Console()
    console.print(restored, frozen)
    console.print(
        f'{summary["images_per_second"]:.0f} images/s, {summary["wall_clock_s"]:.0f} s in all. Look at '
        f'{work_dir / "restorations.png"} and {work_dir / "curves.png"}; '
        f'the figures are in {work_dir / "summary.json"}.',
        soft_wrap=True,
    )
