"""Checkpoints and configs of strangers: none runs code, each is read or refused with a message that names it.

    python -m benchmarks.faults.hostile

Every checkpoint is given to each command that reads one. Of the configs, half are mutated at random, half are made to
run code. Trainings that begin end after a few iterations, or after some seconds of the CPU: they have read the config.
A bare traceback is an error whose message names neither the file nor the key.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import random
import signal
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, load_checkpoint
from torch import nn

from benchmarks.faults.results import write_row
from benchmarks.faults.tiny_runs import SHAPES
from benchmarks.faults.trial import without_reports
from benchmarks.output import REPOSITORY
from mmebm.commands.energy import main as energy
from mmebm.commands.evaluate import main as evaluate
from mmebm.commands.export import main as export
from mmebm.commands.import_weights import main as import_weights
from mmebm.commands.replay import main as replay
from mmebm.commands.test import main as test
from mmebm.commands.train import main as train
from mmebm.config_tree import nested

CONFIGS = 200
ITERATIONS, SECONDS = 3, 20


class Enough(BaseException):
    """A training goes on for long enough."""


def end_early() -> None:
    """Let trainings end after a few iterations."""
    for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
        run_iter = loop.run_iter

        def run(self, *args, run_iter=run_iter):
            run_iter(self, *args)
            if self.iter >= ITERATIONS:
                raise Enough

        loop.run_iter = run


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


class Built:
    """Runs code when its state is set."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __setstate__(self, state: dict) -> None:
        state['mark'].touch()


def checkpoints(folder: Path, mark: Path, state: dict) -> Iterator[Path]:
    """Files, hostile or damaged; hostile ones make the file ``mark``."""
    command = f'touch {mark}'
    touch = Call(os.system, command)
    contents: dict[str, Any] = {
        'meta': dict(state_dict=state, meta=dict(x=touch)),
        'state': dict(state_dict=dict(state, x=touch)),
        'top': touch,
        'eval': dict(state_dict=state, x=Call(eval, f'open({str(mark)!r}, "w")')),
        'exec': dict(state_dict=state, x=Call(exec, f'open({str(mark)!r}, "w")')),
        'getattr': dict(state_dict=state, x=Call(getattr, Path, 'touch')),
        'import': dict(state_dict=state, x=Call(__import__, 'antigravity')),
        'class': dict(state_dict=state, x=Built(mark)),
        'module': nn.Sequential(nn.Linear(2, 2)),
        'optimizer': dict(state_dict=state, optimizer=touch, message_hub={}, meta=dict(epoch=1, iter=1)),
        'config': dict(
            state_dict=state, optimizer={}, message_hub={},
            meta=dict(epoch=0, iter=0, config=f'open({str(mark)!r}, "w")', cfg=f'open({str(mark)!r}, "w")'),
        ),
        'type': dict(state_dict=state, meta=dict(cfg=f"model = dict(backbone=dict(type='os.system', a={command!r}))")),
        'activation': dict(state_dict=state, meta=dict(cfg=(
            "model = dict(type='mmebm.EBMAlgorithm', backbone=dict(type='ConvNeXt', arch='tiny', "
            f"act_cfg=dict(type='subprocess.run', args={command!r}, shell=True)))"
        ))),
        'dtype': dict(state_dict=state, meta=dict(cfg=(
            "model = dict(type='mmebm.EBMAlgorithm', backbone=dict(type='ResNet', depth=18), "
            "head=dict(type='mmebm.EnergyHead', in_channels=512))\n"
            "test_dataloader = dict(dataset=dict(type='mmebm.ImageFolder', pipeline=[dict("
            f"type='torchvision/ConvertImageDtype', dtype='float32 if open({str(mark)!r}, \\'w\\') else 0')]))"
        ))),
        'arguments': dict(model=state, args=Namespace(x=touch)),
        'nothing': None,
        'list': [1, 2],
    }  # fmt: skip
    for name, content in contents.items():
        torch.save(content, folder / f'{name}.pth')
    torch.save(contents['meta'], folder / 'old.pth', _use_new_zipfile_serialization=False)
    sound = folder / 'arguments.pth'
    (folder / 'truncated.pth').write_bytes(sound.read_bytes()[:-400])
    (folder / 'empty.pth').touch()
    (folder / 'text.pth').write_text('<html>404</html>')
    with zipfile.ZipFile(folder / 'zip.pth', 'w') as archive:
        archive.writestr('a/data.pkl', b'cos\nsystem\n(S"touch ' + str(mark).encode() + b'"\ntR.')
    yield from sorted(folder.glob('*.pth'))


def readers(path: Path, config: Path, out: Path) -> dict[str, Callable[[], Any]]:
    """What reads a checkpoint, by name."""
    options = ['--cfg-options', f'experiment_name={path.stem}_{random.random()}']
    start, weights = [str(config), '--work-dir', str(out)], 'model.backbone.init_cfg'
    return {
        'mmengine': lambda: load_checkpoint(nn.Linear(2, 2), str(path)),
        'export': lambda: export([str(path), '--to', 'timm', '--out', str(out / 'timm')]),
        'import': lambda: import_weights(
            [str(path), '--from', 'timm', '--config', str(config), '--out', str(out / 'a.pth')]
        ),
        'replay': lambda: replay([str(path)]),
        'energy': lambda: energy([str(path.parent), '--checkpoint', str(path), '--out', str(path.parent / 'a.csv')]),
        'evaluate': lambda: evaluate([str(path), '--data', str(path.parent), '--work-dir', str(out / 'evaluate')]),
        'test': lambda: test([*start[:1], str(path), *start[1:], *options]),
        'load_from': lambda: train([*start, *options, f'load_from={path}']),
        'init_cfg': lambda: train([*start, *options, f'{weights}.type=Pretrained', f'{weights}.checkpoint={path}']),
        'resume': lambda: train([*start, '--resume', str(path), *options]),
    }


def mutated(config: dict, mark: Path, rng: random.Random) -> tuple[dict, list[str]]:
    """A config with a few nodes replaced, half the time by something that would run code; and their keys."""
    config = copy.deepcopy(config)
    values = [None, True, -1, 0, 1e30, 'text', [], {}, [1, 'a'], dict(type='Nothing'), float('nan')]
    hostile = [
        dict(type='os.system', command=f'touch {mark}'),
        dict(type='subprocess.check_output', args=['touch', str(mark)]),
        dict(type='builtins.exec', source=f'open({str(mark)!r}, "w")'),
        dict(type='mmengine.dump', obj=dict(a=1), file=f'{mark}.json'),
        dict(type='pathlib.Path.touch', self=str(mark)),
    ]
    is_hostile, keys = rng.random() < 0.5, []
    for _ in range(1 if is_hostile else rng.randint(1, 3)):
        places = [(node, key) for _, node in nested(config) if isinstance(node, (dict, list)) for key in _keys(node)]
        node, key = rng.choice(places)
        keys.append(str(key))
        if not is_hostile and rng.random() < 0.3:
            del node[key]
        else:
            node[key] = rng.choice(hostile if is_hostile else values)
    return config, [key for key in keys if not key.isdecimal()]


def options_of(config: dict) -> set[str]:
    """How messages name an option with its value."""
    return {f'{key.rpartition(".")[2]}=' for key, _ in nested(config)} - {'='}


def _keys(node: dict | list) -> list:
    return [*node] if isinstance(node, dict) else [*range(len(node))]


def outcome(call: Callable[[], Any], names: tuple[str, ...]) -> str:
    """``read``, ``refused`` with a message that has one of the names, or the bare error."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            call()
    except Enough:
        return 'read'
    except SystemExit as end:
        text = errors.getvalue() + str(end.code)
        return 'refused' if any(name in text for name in names) else f'SystemExit: {text[-300:]}'
    except Exception as error:
        return 'refused' if any(name in str(error) for name in names) else f'{type(error).__name__}: {error}'[:300]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return 'read'


def main() -> None:
    """Try all, and write the row."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--configs', type=int, default=CONFIGS, help='how many to try; default: %(default)s')
    configs = parser.parse_args().configs
    warnings.simplefilter('ignore')
    without_reports()
    torch.set_num_threads(1)

    def stop(*_) -> None:
        raise Enough

    signal.signal(signal.SIGPROF, stop)
    rng, bare, tried = random.Random(0), [], 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        folder, mark, config = Path(place, 'files'), Path(place, 'ran'), Path(place, 'config.json')
        folder.mkdir()
        Path('config.py').write_text(SHAPES)
        shapes = Config.fromfile('config.py')
        whole = Config.fromfile(REPOSITORY / 'configs' / 'ebm_vit-t_shapes.py')
        for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
            shapes[key] = whole[key]
        for dataset in shapes.test_dataloader.dataset.datasets:
            dataset.size = 16
        shapes.merge_from_dict({'train_cfg.max_epochs': 1, 'train_dataloader.dataset.size': 16})
        shapes.dump(str(config))
        train([str(config), '--work-dir', 'sound', '--cfg-options', 'experiment_name=sound'])
        state = torch.load('sound/epoch_1.pth', weights_only=False)['state_dict']
        files = [*checkpoints(folder, mark, state)]
        end_early()
        for path in files:
            tried += 1
            print(path.name, flush=True)
            for name, call in readers(path, config, Path(place, 'out')).items():
                result = outcome(call, (path.name, str(path)))
                if result not in ('read', 'refused'):
                    bare.append(f'{path.name} by {name}: {result}')
        base = json.loads(config.read_text())
        for i in range(configs):
            tried += 1
            print(i, end=' ', flush=True)
            path = Path(f'mutated_{i}.json')
            content, keys = mutated(base, mark, rng)
            path.write_text(json.dumps(content))
            names = (path.name, *(f'{key}.' for key in base), *keys, *options_of(base))
            options = ['--cfg-options', f'experiment_name=mutated_{i}']
            result = outcome(lambda p=path, o=options: train([str(p), '--work-dir', 'out', *o]), names)
            MMLogger._instance_dict.clear()
            if result not in ('read', 'refused'):
                bare.append(f'{path.name}: {result}')
        executed = int(mark.exists()) + int(Path(f'{mark}.json').exists())
    print('\n'.join(bare))
    write_row('hostile', dict(tried=tried, executed=executed, bare_tracebacks=len(bare), checkpoints=len(files)))


if __name__ == '__main__':
    main()
