"""Losses of thirty iterations at a fixed seed, for every way to compute a training step: no refactoring may move them.

    python -m benchmarks.fixed_seed_losses            record, into results/fixed_seed_losses.json
    python -m benchmarks.fixed_seed_losses --check    compare with what is recorded, to the last digit

Every variant is a process with one thread. Compiled losses depend on compiler and processor: the record is of
one machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from benchmarks.output import REPOSITORY
from mmebm.config_files import find_config
from mmebm.experiments.results import hardware, stamp
from mmebm.launch.machine import adapt_to_cpu

RECORD = Path(__file__).parent / 'results' / 'fixed_seed_losses.json'
ITERATIONS = 30
IMAGES = 'ebm_vit-t_shapes'
PATCHES = 'ebm-patches_vit-t_shapes-64px'

# Of each variant: the config, its options, and the number of processes.
VARIANTS = {
    'demo': (IMAGES, {}, 1),
    'compiled': (IMAGES, {'model.training_step.compile': True}, 1),
    'micro-batch': (IMAGES, {'model.training_step.micro_batch': 10}, 1),
    'two-steps': (IMAGES, {'model.num_steps': 2}, 1),
    'low-memory': (IMAGES, {'model.training_step.low_memory': True}, 1),
    'recomputed-attention': (IMAGES, {'model.training_step.attention': 'recomputed'}, 1),
    'nce': (IMAGES, {'model.nce_weight': 0.1}, 1),
    'two-processes': (IMAGES, {'train_dataloader.batch_size': 16}, 2),
    'patches': (PATCHES, {}, 1),
    'patches-eager': (PATCHES, {'model.training_step.compile': False}, 1),
}


def losses(variant: str) -> list[float]:
    """Losses of the first iterations, in this process, or in this one of several."""
    torch.set_num_threads(1)
    name, options, processes = VARIANTS[variant]
    cfg = Config.fromfile(find_config(name))
    cfg.merge_from_dict(options)
    cfg.train_dataloader.dataset.size = ITERATIONS * processes * cfg.train_dataloader.batch_size
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'mmebm.FrozenFeatureHook']
    for kind in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'val_{kind}'] = cfg[f'test_{kind}'] = None
    cfg.launcher = 'pytorch' if processes > 1 else 'none'
    cfg.log_level = 'WARNING'
    adapt_to_cpu(cfg)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = Runner.from_cfg(cfg)
        runner.train()
    logged = runner.message_hub.log_scalars
    restoration = 'train/loss_restoration'  # has this name where there are other losses
    values, _ = logged[restoration if restoration in logged else 'train/loss'].data
    return values.tolist()


def in_process(variant: str) -> list[float]:
    """The same, in a process of its own."""
    processes = VARIANTS[variant][2]
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}'] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'losses.json')
        command = [
            sys.executable,
            *launch,
            '-m',
            'benchmarks.fixed_seed_losses',
            '--variant',
            variant,
            '--out',
            str(out),
        ]
        environment = os.environ | dict(OMP_NUM_THREADS='1')
        log = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if log.returncode:
            raise RuntimeError(f'{variant} failed:\n{log.stdout[-2000:]}\n{log.stderr[-4000:]}')
        return json.loads(out.read_text())


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='compare with the record and write nothing')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--variant', choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument('--out', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        values = losses(args.variant)
        if int(os.environ.get('RANK', 0)) == 0:
            args.out.write_text(json.dumps(values))
        return
    recorded = json.loads(RECORD.read_text())['losses'] if args.check else {}
    found, different = {}, []
    for variant in args.variants:
        found[variant] = in_process(variant)
        same = found[variant] == recorded.get(variant)
        print(
            f'{variant}: {found[variant][0]!r} ... {found[variant][-1]!r}',
            ('same' if same else 'DIFFERENT') if args.check else '',
            flush=True,
        )
        if args.check and not same:
            different.append(variant)
    if different:
        sys.exit(f'Not as recorded: {", ".join(different)}')
    if not args.check:
        lines = ',\n'.join(f'    {json.dumps(name)}: {json.dumps(values)}' for name, values in found.items())
        facts = json.dumps(dict(device=hardware(), torch=torch.__version__) | stamp())
        RECORD.write_text(f'{{\n  "facts": {facts},\n  "losses": {{\n{lines}\n  }}\n}}\n')


if __name__ == '__main__':
    main()
