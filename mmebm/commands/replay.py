"""``mmebm-replay``: runs a training step again that was skipped, and says where its values stop being finite."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device

from mmebm.config_data import check_data
from mmebm.config_files import find_config
from mmebm.engine.faulty_steps.capture import read_capture
from mmebm.engine.faulty_steps.replay import Replay, replay
from mmebm.error_text import first_few
from mmebm.launch.command_line import expanded
from mmebm.upstream.quiet_imports import import_quietly


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step and print what it did; ``--help`` lists the flags."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        capture = read_capture(args.capture)
        if args.config:
            config = Config.fromfile(find_config(args.config))
        else:
            check_data(capture['config'], args.capture)
            config = Config(capture['config'])
        import_quietly(*(f'{config.get("default_scope")}.{part}' for part in ('datasets', 'models')))
        found = replay(capture, config, args.device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        parser.error(f'{args.capture}: {error}' if args.capture not in str(error) else str(error))
    print(report(capture, found))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='mmebm-replay', description="Run a skipped training step again, with autograd's anomaly detection."
    )
    parser.add_argument('capture', type=expanded, help='of WORK_DIR/captures')
    parser.add_argument('--config', help='of the training; default: what the capture says, as data')
    parser.add_argument('--device', default=get_device(), help='default: %(default)s')
    return parser


def report(capture: dict, found: Replay) -> str:
    """What a step did in training and what it did now, in lines."""
    place = capture.get('place', {})
    rows = {
        'in training': f'{capture.get("fault")} (iteration {place.get("iteration")}, rank {place.get("rank")})',
        'images': first_few(capture.get('files', [])) or 'not known',
        'now': 'finite' if found.is_finite else 'not finite',
        'losses': ', '.join(f'{name} = {value:.6g}' for name, value in found.losses.items()),
        'norm of gradients': f'{found.norm:.6g}',
        'inputs that are not finite': first_few(found.inputs) or 'none',
        'first module with such an output': found.module or 'none',
        'first operator with such a gradient': found.operator or 'none',
        'parameters with such a gradient': first_few(found.gradients) or 'none',
    }
    return '\n'.join(f'{name}: {value}' for name, value in rows.items())


if __name__ == '__main__':
    main()
