"""``mmebm-export``: takes a pretrained backbone to another library, with proof that it is still the same."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.config_files import find_config
from mmebm.interchange import TARGETS, export
from mmebm.interchange.export import NUM_IMAGES, TOLERANCE
from mmebm.interchange.source import AS_LOADED
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Export; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('WARNING')  # mmengine logs each weight that it loads
    out = args.out or args.checkpoint.with_name(f'{args.checkpoint.stem}_{args.to}')
    try:
        config = Config.fromfile(find_config(args.config)) if args.config else None
        result = export(args.checkpoint, args.to, out, config, args.image_size, args.channels)
    except (FileExistsError, FileNotFoundError, ImportError, ValueError) as error:
        parser.error(str(error))
    height, width = result.image_size
    if result.left_out:
        print(f'Left out, since the last features do not need them: {", ".join(result.left_out)}')
    if result.note == AS_LOADED:
        print(f'Warning: {AS_LOADED} timm and transformers give RGB: if training was on BGR, give --channels bgr')
    elif result.note:
        print(result.note)
    print(
        f'Largest difference of features: {result.difference:.1e}, of features up to {result.magnitude:.1f} '
        f'({NUM_IMAGES} images of {height} x {width} pixels, float32; at most {TOLERANCE:.0e} is accepted)'
    )
    for file in result.files:
        print(f'Wrote {file}')


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number of at least 1')
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-export', description='Take the backbone of a pretraining checkpoint to another library.'
    )
    parser.add_argument('checkpoint', type=path, help='of a pretraining')
    parser.add_argument('--to', choices=TARGETS, required=True, help='whose model to make it')
    parser.add_argument('--config', help="that it was trained with, a path or the name of one of mmebm's configs "
                        '(default: the one that the checkpoint names)')  # fmt: skip
    parser.add_argument('--out', type=path, metavar='FOLDER', help='new or empty (default: beside the checkpoint)')
    parser.add_argument('--image-size', type=positive, metavar='PIXELS', help='to resize position embeddings to')
    parser.add_argument('--channels', choices=['as-loaded', 'bgr'], default='as-loaded',
                        help='bgr: it was trained on BGR images and is to take RGB ones '
                        '(default: whatever it was trained on)')  # fmt: skip
    return parser
