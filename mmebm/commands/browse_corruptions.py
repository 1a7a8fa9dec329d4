"""``mmebm-browse-corruptions``: what a config's pipeline makes of the first images, before anything is trained."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmebm.commands.model_arguments import config_of, run_or_exit
from mmebm.launch.command_line import OptionAction, path
from mmebm.launch.options import check_data_roots, merge_options

SECTIONS = dict(train='train_dataloader', val='val_dataloader', test='test_dataloader')


def main(argv: Sequence[str] | None = None) -> None:
    """Draw; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: browse(args))


def browse(args: argparse.Namespace) -> None:
    """Draw clean and corrupted images, two rows for each corruption of the data set.

    Raises:
        ValueError: The config has no such data, or its pipeline makes no pairs.
    """
    from mmebm.apis.tables import check_ending
    from mmebm.visualization.figures import plot_restorations

    check_ending(args.out, ('.png', '.jpg', '.pdf', '.svg'))
    cfg = config_of(args.config)
    merge_options(cfg, args.cfg_options or {})
    section = SECTIONS[args.split]
    if not cfg.get(section):
        raise ValueError(f'--split {args.split}: the config has no {section}')
    check_data_roots(cfg, (section,))
    groups: dict[str, list] = {}
    for name, sample in pairs(cfg, section, args.images):
        groups.setdefault(name, []).append(sample)
    plot_restorations(groups, args.out, rows=('clean', 'corrupted'))
    print('\n'.join(f'{name}: {len(samples)}' for name, samples in groups.items()))
    print(f'Wrote {args.out}')


def pairs(cfg: Config, section: str, number: int) -> Iterator[tuple[str, Any]]:
    """The first pairs of a data set, or of each that it is made of: their corruption, and a sample with both images."""
    from mmpretrain.registry import DATASETS
    from mmpretrain.structures import DataSample

    if number < 1:
        raise ValueError(f'--images must be at least 1, not {number}')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        dataset = DATASETS.build(cfg[section].dataset)
        swaps = bool((cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}).get('to_rgb'))
    for part in getattr(dataset, 'datasets', [dataset]):
        for item in islice((part[i] for i in range(len(part))), number):
            inputs = item['inputs']
            if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
                raise ValueError(
                    f'{section}: the pipeline makes no pairs of corrupted and clean images. PatchEBM, CIM and '
                    'EBMAlgorithm with model.corruption corrupt images themselves: see docs/cim.md and tools/restore.py'
                )
            corrupted, clean = (view.float().flip(0) if swaps and len(view) == 3 else view.float() for view in inputs)
            sample = DataSample()
            sample.set_field(corrupted, 'corrupted')
            sample.set_field(clean, 'clean')
            yield item['data_samples'].get('corruption') or 'corrupted', sample


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    description = "Draw what a config's pipeline makes of the first images."
    parser = argparse.ArgumentParser(prog='mmebm-browse-corruptions', description=description)
    add = parser.add_argument
    add('config', help="a path, or the name of one of mmebm's configs")
    add('--images', type=int, default=8, metavar='N', help='of each data set (default: %(default)s)')
    add('--split', choices=SECTIONS, default='train', help='whose data (default: %(default)s)')
    add('--out', type=path, default='corruptions.png', metavar='FILE', help='to write (default: %(default)s)')
    add('--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE', help='as in training')
    return parser


if __name__ == '__main__':
    main()
