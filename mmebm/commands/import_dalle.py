"""``mmebm-import-dalle``: turns the published pickles of DALL-E's tokenizer into one file of weights."""

import argparse
from collections.abc import Sequence

from mmebm.interchange.dalle import import_dalle
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Import; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    hashes = {part: value for part in ('encoder', 'decoder') if (value := getattr(args, f'{part}_sha256'))}
    try:
        found = import_dalle(args.encoder, args.decoder, args.out, hashes)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    for part, value in found.items():
        print(f'{part}: SHA-256 {value}' + ('' if part in hashes else f', not compared (give --{part}-sha256)'))
    print(
        f'Wrote {args.out}. In a config of CIM with 8192 tokens:\n'
        f"model = dict(tokenizer=dict(model=dict(_delete_=True, type='mmebm.DALLE', checkpoint={str(args.out)!r})))"
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-import-dalle',
        description="Turn the published pickles of DALL-E's tokenizer into one .safetensors file. Nothing in them is "
        'executed.',
    )
    parser.add_argument('encoder', type=path, help='encoder.pkl')
    parser.add_argument('decoder', type=path, help='decoder.pkl')
    parser.add_argument('--out', type=path, required=True, metavar='FILE', help='to write, .safetensors')
    for part in ('encoder', 'decoder'):
        parser.add_argument(f'--{part}-sha256', metavar='HEX', help=f'that {part}.pkl must have')
    return parser
