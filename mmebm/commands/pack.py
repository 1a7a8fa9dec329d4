"""``mmebm-pack``: writes a folder of images as tar shards with an index, which ``mmebm.TarShards`` reads."""

import argparse
from collections.abc import Sequence

from mmebm.commands.model_arguments import run_or_exit
from mmebm.error_text import counted
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Pack; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    run_or_exit(parser, lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Pack, and say what is there and what was left out."""
    from mmebm.datasets.packed.packing import BROKEN, pack

    packed = pack(args.folder, args.out, args.images_per_shard)
    classes = '' if packed.classes is None else f', of {counted(packed.classes, "class")}'
    print(f'{counted(packed.images, "image")}{classes}, in {counted(packed.shards, "shard")} in {args.out.resolve()}')
    if packed.broken:
        print(f'Left out, since broken ({counted(len(packed.broken), "file")}; {args.out / BROKEN} has them too):')
        print('\n'.join(f'  {line}' for line in packed.broken))
    print(
        "In a config, in place of type='mmebm.ImageFolder' and its data_root:\n"
        f"  type='mmebm.TarShards', data_root='{args.out}'"
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-pack',
        description='Write a folder of images as tar shards that WebDataset reads too, with an index. The bytes of '
        'each file stay as they are. A call that was interrupted goes on.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('folder', metavar='FOLDER', type=path, help='of images, nested or not; its subfolders are the classes if all '
        'images lie in one')  # fmt: skip
    add('--out', metavar='SHARDS', type=path, required=True, help='a folder that is new, empty, or of a call that was '
        'interrupted')  # fmt: skip
    add('--images-per-shard', type=int, default=10_000, metavar='N', help='files in each shard')
    return parser
