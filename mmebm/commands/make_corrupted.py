"""``mmebm-make-corrupted``: writes images, and what a trained ``CIM`` makes of them, as two folders."""

import argparse
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from mmebm.checkpoint import check_fit, read_checkpoint
from mmebm.config_files import find_config
from mmebm.datasets.corrupted_files import write_corrupted
from mmebm.launch.command_line import path
from mmebm.model_building import build_initialized, type_name
from mmebm.models.selfsup.cim import CIM


def main(argv: Sequence[str] | None = None) -> None:
    """Write both folders; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    init_default_scope('mmpretrain')
    if not 0 <= args.seed < 2**63:
        parser.error(f'--seed must be at least 0 and below 2**63, not {args.seed}')
    try:
        cfg = Config.fromfile(find_config(args.config))
        model = trained(cfg, args.checkpoint)
        dataset = dict(cfg.test_dataloader.dataset)
        if args.data:
            pipeline = of_files(dataset['pipeline'], model.image_size)
            dataset = dict(type='mmebm.ImageFolder', data_root=args.data, pipeline=pipeline, test_mode=True)
        number = write_corrupted(model, DATASETS.build(dataset), args.out, args.target, args.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    clean, corrupted = (str(args.out / name) for name in ('clean', 'corrupted'))
    print(
        f"{number} images in {clean} and as many in {corrupted}. For mmebm.ImageFolder(data_root='{clean}'):\n"
        f"dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.CorruptedCopy', clean_root='{clean}', "
        f"corrupted_root='{corrupted}'))"
    )


def trained(cfg: Config, checkpoint: str) -> CIM:
    """The model of a config with the weights of a checkpoint, which has the tokenizer's, too.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The config is of another model, or the weights are.
    """
    if 'tokenizer' not in cfg.model:
        raise ValueError(f'the config is of {cfg.model.type}; corrupted copies are made by a CIM')
    state = read_checkpoint(checkpoint).state
    cfg.model.tokenizer.model.update(init_cfg=None)
    cfg.model.tokenizer.model.pop('checkpoint', None)  # of a DALLE
    torch.manual_seed(0)
    model = build_initialized(cfg)
    check_fit(state, model.state_dict(), checkpoint, 'the model of the config')
    model.load_state_dict(state)
    return model


def of_files(pipeline: Sequence[dict], size: tuple[int, int]) -> list[dict]:
    """A pipeline for files: reads and cuts them first if the one given does not, and keeps their paths.

    Args:
        pipeline: Of a data set, perhaps of one that draws its images.
        size: Height and width to cut images to, in pixels.
    """
    steps = [dict(step) for step in pipeline]
    for step in steps:
        if type_name(step) == 'PackInputs' and 'meta_keys' in step:
            step['meta_keys'] = (*step['meta_keys'], 'img_path')
    if any(type_name(step).startswith('LoadImage') for step in steps):
        return steps
    edge = dict(type='ResizeEdge', scale=max(size), edge='short')
    return [dict(type='mmebm.LoadImage'), edge, dict(type='CenterCrop', crop_size=size[::-1]), *steps]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-make-corrupted',
        description="Write a data set's images, and copies in which a trained CIM has replaced tokens.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='a config of CIM, whose test pipeline is used')
    add('checkpoint', help='of its training')
    add('out', metavar='OUT', type=path, help='a folder that is new or empty')
    add(
        '--data',
        metavar='FOLDER',
        help="any folder of images, cut to the model's size if the config's test pipeline reads no files; by default, "
        "the config's test set",
    )
    add('--target', choices=['clean', 'decoded'], default='clean', help='what is in OUT/clean')
    add('--seed', type=int, default=0, help='of masks and tokens')
    return parser
