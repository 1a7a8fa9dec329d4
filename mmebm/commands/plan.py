"""``mmebm-plan``: what a pretraining run will need, before it is started: arithmetic, memory, time, learning rate."""

import argparse
import json
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.config_files import find_config
from mmebm.launch.command_line import OptionAction, path
from mmebm.launch.explanations import OF_VALUES, explained
from mmebm.launch.options import merge_options
from mmebm.planning.gpus import GPUS
from mmebm.planning.plan import MEASUREMENTS, Request, make_plan
from mmebm.planning.plan_table import print_plan


def main(argv: Sequence[str] | None = None) -> None:
    """Plan a run; ``--help`` lists the flags."""
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    name, options, file = (args.pop(key) for key in ('config', 'cfg_options', 'json'))
    MMLogger.get_current_instance().setLevel('WARNING')  # mmengine logs each parameter's weight decay
    try:
        if file and not file.parent.is_dir():
            raise FileNotFoundError(f'--json {file}: there is no folder "{file.parent}"')
        cfg = Config.fromfile(find_config(name))
        merge_options(cfg, options or {})
        if not (cfg.get('model') or {}).get('backbone'):
            raise ValueError(f'{name} trains no backbone, so there is nothing to plan')
        with explained([cfg]):
            plan, notes = make_plan(name, cfg, Request(**args))
    except (OSError, RuntimeError, *OF_VALUES) as error:
        parser.error(str(error))
    print_plan(plan, notes)
    if file:
        file.write_text(json.dumps(plan | dict(notes=notes), indent=2) + '\n')


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-plan', description='Say what a pretraining run will need, without a GPU and without data.'
    )
    add = parser.add_argument
    add('config', help="a path, or the name of one of mmebm's configs")
    add('--gpus', type=int, default=1, metavar='N', help='how many devices, over all nodes')
    add('--gpu', choices=[*GPUS, 'cpu'], required=True, help='which device')
    add('--images', type=int, metavar='N', help='length of the data set, where neither its folder nor its name tells')
    add('--image-size', type=int, metavar='PIXELS', help="where the config doesn't tell")
    add('--images-per-second', type=float, metavar='X', help='of one device, for the hours')
    add('--json', type=path, metavar='FILE', help='also write the plan to a file')
    results = 'the folder in which benchmarks/step_time.py has left its measurements (default: %(default)s)'
    add('--results', type=path, default=MEASUREMENTS, metavar='FOLDER', help=results)
    add('--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE', help='as in training')
    return parser
