"""``mmebm-make-shapes``: writes :class:`mmebm.datasets.Shapes` as files, laid out as ImageNet, ADE20K or COCO."""

import argparse
from collections.abc import Sequence

from mmebm.datasets.embedded.shapes_files import CLASSES, LAYOUTS, write_shapes
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Write both splits; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        hint = write_shapes(**vars(args))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f'{args.train} train and {args.val} val images, {args.image_size} px, in {args.out.resolve()}')
    print(f'{len(CLASSES)} classes: {", ".join(CLASSES)}')
    print(hint)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-make-shapes',
        description='Draw the embedded data set of shapes and write it as files.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('out', metavar='OUT', type=path, help='a folder that is new or empty')
    add('--layout', choices=LAYOUTS, required=True, help='the data set whose folders to imitate')
    add('--train', type=int, default=2000, metavar='N', help='number of training images')
    add('--val', type=int, default=500, metavar='N', help='number of validation images')
    add('--image-size', type=int, default=224, metavar='PIXELS', help='height and width')
    add('--seed', type=int, default=0, help='another seed makes other images')
    return parser
