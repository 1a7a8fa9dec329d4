"""Whether the generator is worth its cost: other replacements at the same positions.

    python -m benchmarks.cim_replacements work_dirs/demo_cim/tokenizer/epoch_4.pth

Trains the CIM configs for Shapes with masks, tokens of equal probability, the generator's most probable tokens and
drawn ones, and writes what they reach, each on its own kind of corrupted image, and the accuracy of the frozen
features, to ``results/cim_replacements.json``.
"""

import argparse
import itertools
from pathlib import Path

from mmengine.registry import init_default_scope

from benchmarks.output import RESULTS
from mmebm.experiments.demos.cim_demo import CONFIGS, train
from mmebm.experiments.demos.demo_runner import frozen_accuracies
from mmebm.experiments.results import hardware, markdown_table, read_rows, stamp, write_rows

# The first two need no generator; it is trained all the same, and so the times are equal.
REPLACEMENTS = {
    'masks': {'model.painting': 'masked'},
    'uniform tokens': {'model.generator.choice': 'uniform'},
    'most probable tokens': {'model.generator.choice': 'most_probable'},
    'drawn tokens': {'model.generator.choice': 'drawn'},
}
COLUMNS = ('task', 'replacement', 'psnr_gain_db', 'auroc', 'knn_top1', 'linear_top1')


def main() -> None:
    """Train what has no row yet, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('tokenizer', type=Path, help='a checkpoint of tokenizers/vqvae_shapes')
    parser.add_argument('--tasks', nargs='+', choices=[*CONFIGS], default=[*CONFIGS])
    parser.add_argument('--replacements', nargs='+', choices=[*REPLACEMENTS], default=[*REPLACEMENTS])
    parser.add_argument('--epochs', type=int, default=2, help='of each training, at least 2')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/cim_replacements'))
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    path = RESULTS / 'cim_replacements.json'
    rows = read_rows(path)
    done = {(row['task'], row['replacement'], row['epochs'], row['seed']) for row in rows}
    for task, replacement in itertools.product(args.tasks, args.replacements):
        if (task, replacement, args.epochs, args.seed) in done:
            continue
        rows.append(dict(task=task, replacement=replacement, **measured(task, replacement, args)))
        write_rows(path, rows)
    print(markdown_table(COLUMNS, [[str(row.get(name, '-')) for name in COLUMNS] for row in rows]))


def measured(task: str, replacement: str, args: argparse.Namespace) -> dict:
    """What a training with a replacement reaches."""
    options = REPLACEMENTS[replacement] | length(args.epochs)
    folder = args.work_dir / f'{task}_{replacement.replace(" ", "_")}_{args.epochs}_{args.seed}'
    runner = train(task, args.tokenizer, folder, args.seed, options)
    metrics = runner.test()
    gain, auroc = {}, {}
    if 'restoration/all/psnr_restored_db' in metrics:
        before, after = (metrics[f'restoration/all/psnr_{name}_db'] for name in ('corrupted', 'restored'))
        gain = dict(psnr_corrupted_db=round(before, 3), psnr_gain_db=round(after - before, 3))
    if 'tokens/all/detection_auroc' in metrics:
        auroc = dict(auroc=round(metrics['tokens/all/detection_auroc'], 4))
    return dict(
        **gain, **auroc, **frozen_accuracies(runner), epochs=args.epochs, seed=args.seed, device=hardware(), **stamp()
    )


def length(epochs: int) -> dict:
    """Options of a training of that many epochs, the first of which warms up."""
    return {'train_cfg.max_epochs': epochs, 'param_scheduler.1.end': epochs}


if __name__ == '__main__':
    main()
