"""The demo: pretrains a small backbone on the embedded data set, and shows what it restores and learned."""

import json
import time
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from mmebm.config_files import find_config
from mmebm.evaluation.restoration_metric import split_key
from mmebm.experiments.demos.demo_runner import frozen_accuracies, make_runner
from mmebm.launch.preparation import add_hook
from mmebm.model_building import type_name
from mmebm.report import write_report
from mmebm.visualization import plot_curves, plot_restorations
from mmebm.visualization.figures import scalars

# What pictures and summary are made from, and where a config has it.
NEEDED = {
    'test_dataloader.dataset': ('ConcatDataset',),
    'test_evaluator': ('RestorationMetric', 'EnergyMetric'),
    'custom_hooks': ('FrozenFeatureHook',),
}


def demo_config(name: str) -> Config:
    """The config of a name or path.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It does not measure what is shown.
    """
    cfg = Config.fromfile(find_config(name))
    check_config(cfg, name)
    return cfg


def run_demo(cfg: Config, work_dir: Path, seed: int) -> None:
    """Train, test, draw, and print what came out.

    Args:
        cfg: Of ``demo_config``.
        work_dir: For pictures, figures and checkpoint.
        seed: Of initial weights, order of the images and corruptions.
    """
    start = time.time()
    add_hook(cfg, 'ProvenanceHook')
    announce(cfg)
    runner = make_runner(cfg, work_dir, seed)
    runner.train()
    metrics = runner.test()

    plot_restorations(restorations(runner), work_dir / 'restorations.png')
    plot_curves(runner.message_hub, work_dir / 'curves.png')
    summary = summarize(runner, metrics) | dict(wall_clock_s=round(time.time() - start, 1))
    (work_dir / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    write_report([work_dir], work_dir / 'report.html')
    print_summary(summary, work_dir)


def check_config(cfg: Config, name: str) -> None:
    """Check that a config measures what is shown: a test set per corruption, the metrics, and frozen features.

    Raises:
        ValueError: It does not; names what it lacks.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    parts = (dataset, cfg.get('test_evaluator'), cfg.get('custom_hooks'))
    for (place, needed), part in zip(NEEDED.items(), parts, strict=True):
        members = [part] if isinstance(part, dict) else part or []
        missing = [kind for kind in needed if kind not in map(type_name, members)]
        if missing:
            found = ', '.join(repr(member['type']) for member in members)
            raise ValueError(
                f'--config {name}: the demo needs {" and ".join(missing)} in {place}, which has {found or "nothing"}; '
                'see ebm_vit-t_shapes, which has all that is shown'
            )


def announce(cfg: Config) -> None:
    """Print what will happen."""
    backbone, data = type_name(cfg.model.backbone), type_name(cfg.train_dataloader.dataset)
    print(
        f'Pretrains a {backbone} on {data} for {cfg.train_cfg.max_epochs} epochs (3 to 4 minutes on 2 cores), then '
        'restores held-out images.\nFrozen features are classified before the training, which takes some seconds, and '
        'after it.',
        flush=True,
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
        _, corruption, name = split_key(key)
        name = name.replace('auroc', 'energy_auroc').replace('pair', 'energy_pair')
        corruptions.setdefault(corruption, {})[name] = round(float(value), 4)
    return dict(
        images_per_second=round(runner.train_dataloader.batch_size * len(seconds) / float(seconds.sum()), 1),
        corruptions=corruptions,
        **frozen_accuracies(runner),
    )


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
        f'{summary["images_per_second"]:.0f} images/s, {summary["wall_clock_s"]:.0f} s in all. Open '
        f'{work_dir / "report.html"} in a browser, or look at {work_dir / "restorations.png"} and '
        f'{work_dir / "curves.png"}; the figures are in {work_dir / "summary.json"}.',
        soft_wrap=True,
    )
