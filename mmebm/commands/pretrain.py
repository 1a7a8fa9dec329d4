"""``mmebm-pretrain``: from a folder of images to a pretrained backbone, with what fits the images and the machine."""

import argparse
from collections.abc import Sequence

from mmebm.experiments.folder_run import BACKBONES, FolderRun
from mmebm.interchange import TARGETS
from mmebm.launch.command_line import OptionAction, path


def main(argv: Sequence[str] | None = None) -> None:
    """Pretrain; ``--help`` lists the flags."""
    parser = make_parser()
    run = FolderRun(**vars(parser.parse_args(argv)))
    try:
        run.prepare()
    except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    run.run()


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-pretrain', description='Pretrain a backbone on a folder of images, and export it.'
    )
    add = parser.add_argument
    add('folder', type=path, help='of images, nested or not; subfolders, if they are classes, are used for a probe')
    add('--backbone', choices=BACKBONES, default='vit-tiny', help='(default: %(default)s)')
    add('--epochs', type=int, default=100, metavar='N', help='(default: %(default)s)')
    add('--out', type=path, required=True, metavar='RUN', help='a new folder for config, log, checkpoint and backbone')
    add('--image-size', type=int, metavar='PIXELS', help="(default: the config's: 64 of vit-tiny, 224 of the others)")
    add('--seed', type=int, default=0, help='of weights, order and corruptions (default: %(default)s)')
    add('--to', choices=TARGETS, help='whose backbone to export (default: timm if it is installed, else mmpretrain)')
    add('--cfg-options', dest='options', nargs='+', action=OptionAction, default={}, metavar='KEY=VALUE',
        help='of the config, in place of what is chosen')  # fmt: skip
    return parser


if __name__ == '__main__':
    main()
