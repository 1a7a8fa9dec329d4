"""``mmebm-import``: turns weights of timm, HuggingFace, torchvision, MAE or DINOv2 into a start for pretraining."""

import argparse
from collections.abc import Sequence
from shlex import quote

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.config_files import find_config
from mmebm.interchange import FORMATS, import_weights
from mmebm.launch.command_line import path


def main(argv: Sequence[str] | None = None) -> None:
    """Import; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('WARNING')
    try:
        backbone = (Config.fromfile(find_config(args.config)).get('model') or {}).get('backbone')
        if not backbone:
            raise ValueError(f'--config {args.config} has no model.backbone')
        left_out = import_weights(args.weights, args.format, backbone.to_dict(), args.out)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    if left_out:
        print(f'Left out, since the backbone does not have them: {", ".join(left_out)}')
    checkpoint = quote(str(args.out))
    print(
        f'Wrote {args.out}. To start from it:\n'
        f'  --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint={checkpoint} '
        'model.backbone.init_cfg.prefix=backbone.'
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-import', description='Turn weights of another library into a checkpoint to start pretraining from.'
    )
    parser.add_argument('weights', type=path, help='a state dict, a checkpoint that holds one, or .safetensors')
    parser.add_argument('--from', dest='format', choices=FORMATS, required=True, help='whose names they have')
    parser.add_argument('--config', required=True, help="of the pretraining, a path or the name of one of mmebm's")
    parser.add_argument('--out', type=path, required=True, metavar='FILE', help='to write')
    return parser
