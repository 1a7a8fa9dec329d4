"""Ten batches whose images are not finite: the training finishes, with a loss as that of an undisturbed one.

python -m benchmarks.faults.nan
"""

import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from benchmarks.faults.results import write_row
from benchmarks.faults.tiny_runs import SHAPES
from mmebm.commands.train import main as train
from mmebm.registry import HOOKS

INJECTED, ITERATIONS, SEEDS = 10, 128, (0, 1, 2)


@HOOKS.register_module()
class InjectHook(Hook):
    """Makes a value of each image in some batches NaN or infinite.

    Args:
        iterations: Which batches.
    """

    def __init__(self, iterations: list[int]) -> None:
        self.iterations = iterations

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Spoil the batch, in place."""
        if runner.iter in self.iterations:
            value = float('nan') if runner.iter % 2 else float('inf')
            data_batch['inputs'] = _spoiled(data_batch['inputs'], value)


def _spoiled(node: Any, value: float) -> Any:
    if isinstance(node, torch.Tensor):
        node = node.float()
        node[..., 0, 0] = value
        return node
    return [_spoiled(child, value) for child in node]


def last_loss(place: Path, seed: int, iterations: list[int]) -> tuple[float, int]:
    """Mean loss of the last epoch, and the number of skipped steps."""
    config, work_dir = place / 'config.py', place / f'run_{seed}_{len(iterations)}'
    hook = dict(type='mmebm.InjectHook', iterations=iterations)
    config.write_text(f'{SHAPES}custom_hooks.append({hook!r})\nrandomness = dict(seed={seed})\n')
    train([str(config), '--work-dir', str(work_dir), '--cfg-options', f'experiment_name={work_dir.name}'])
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    skipped = sum(log.read_text().count('Skipped a step') for log in work_dir.glob('*/*.log'))
    return statistics.mean(losses[-ITERATIONS // 8 :]), skipped


def main() -> None:
    """Train with and without, and write the row."""
    iterations = sorted(random.Random(0).sample(range(ITERATIONS), INJECTED))
    with tempfile.TemporaryDirectory() as place:
        clean = [last_loss(Path(place), seed, [])[0] for seed in SEEDS]
        runs = [last_loss(Path(place), seed, iterations) for seed in SEEDS]
    loss = statistics.mean(loss for loss, _ in runs)
    row = dict(
        injected=INJECTED,
        skipped=runs[0][1],
        finished=len(runs) == len(SEEDS),
        loss_ratio=round(loss / statistics.mean(clean), 4),
        clean_spread=round(statistics.stdev(clean) / statistics.mean(clean), 4),
        seeds=len(SEEDS),
    )
    write_row('nan', row)


if __name__ == '__main__':
    main()
