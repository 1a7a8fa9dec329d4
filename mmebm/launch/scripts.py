"""Runs mmpretrain's own train and test scripts, with mmebm's handling of configs."""

import gc
import importlib.util
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmebm.config_files import find_config
from mmebm.engine.resuming.stop_signals import catching_signals
from mmebm.evaluation import DumpPredictions
from mmebm.launch.command_line import OptionAction, expanded
from mmebm.launch.drawing import check_tta
from mmebm.launch.explanations import explained
from mmebm.launch.interruption import clear_mark, told_why
from mmebm.launch.machine import adapt_to_cpu
from mmebm.launch.options import merge_options
from mmebm.launch.preparation import mend_collate, prepare_test, prepare_training
from mmebm.launch.runner import CheckedRunner
from mmebm.launch.start import choose_start
from mmebm.launch.terminal import concise_terminal
from mmebm.upstream.quiet_imports import import_quietly
from mmebm.upstream.yapf_cache import import_yapf


def train(argv: Sequence[str] | None = None) -> None:
    """Run mmpretrain's ``tools/train.py``.

    Args:
        argv: The command line without the program's name; None for ``sys.argv``.
    """

    def prepare(cfg: Config) -> None:
        clear_mark(Path(cfg.work_dir))
        prepare_training(cfg)

    with catching_signals():
        run_script(load_script('train'), argv, prepare)


def test(argv: Sequence[str] | None = None) -> None:
    """Run mmpretrain's ``tools/test.py``; ``argv`` as in ``train``."""
    script = load_script('test')
    script.DumpResults = DumpPredictions  # for --out
    run_script(script, argv, prepare_test)


def load_script(name: str) -> ModuleType:
    """Import ``tools/<name>.py`` of the installed mmpretrain as a fresh module, with a runner that checks more."""
    package = Path(importlib.util.find_spec('mmpretrain').origin).parent
    path = package / '.mim' / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'mmpretrain_{name}', path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.Runner = CheckedRunner
    return script


def run_script(script: ModuleType, argv: Sequence[str] | None, prepare: Callable[[Config], None]) -> None:
    """Run the script's ``main`` with its ``parse_args`` and ``merge_args`` extended.

    Args:
        script: mmpretrain's script, from ``load_script``.
        argv: As in ``train``.
        prepare: Checks and completes the merged config, in place.
    """
    import_yapf()
    parse_args, merge_args = script.parse_args, script.merge_args

    def parse_with_config_name() -> Namespace:
        args = parse_args()
        texts = {name: value for name, value in vars(args).items() if isinstance(value, str)}
        vars(args).update({name: expanded(text) for name, text in texts.items()})  # as --work-dir=~/x
        args.config = str(find_config(args.config))
        return args

    def merge_checked(cfg: Config, args: Namespace) -> Config:
        configs.append(cfg)
        import_quietly(*(f'{cfg.get("default_scope")}.{part}' for part in ('datasets', 'models')))
        mend_collate(cfg)
        if getattr(args, 'tta', False):
            check_tta(cfg)
        options, args.cfg_options = args.cfg_options or {}, None  # which the script would merge last, unchecked
        load_from = options.get('load_from') or cfg.get('load_from')
        resumed = getattr(args, 'resume', None)
        if resumed not in (None, 'auto') and 'load_from' in options:
            raise ValueError(f'--resume {resumed} and --cfg-options load_from={load_from}: give one of them')
        cfg = merge_args(cfg, args)
        if getattr(args, 'tta', False):  # which has wrapped the model
            options = {re.sub(r'^model\.(?!module\.)', 'model.module.', key): value for key, value in options.items()}
        merge_options(cfg, options)
        if getattr(args, 'resume', None) == 'auto' or cfg.get('resume') and not cfg.get('load_from'):
            choose_start(cfg, load_from)
        work_dirs.append(Path(cfg.work_dir))
        configs.append(cfg)
        prepare(cfg)
        if get_device() == 'cpu':
            adapt_to_cpu(cfg)
        return cfg

    script.parse_args, script.merge_args = parse_with_config_name, merge_checked
    script.DictAction = OptionAction
    original_argv = sys.argv
    if argv is not None:
        sys.argv = [original_argv[0], *argv]
    work_dirs: list[Path] = []
    configs: list[Config] = []
    code = None
    try:
        with concise_terminal(), told_why(work_dirs), explained(configs):
            script.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = original_argv
    leave_process_group()  # once no traceback holds the runner
    if code is not None:
        raise SystemExit(code)


def leave_process_group() -> None:
    """Leave the group of processes, if there is one.

    A process whose communication threads still run at exit is sometimes aborted, and its job with it. They run for as
    long as the wrapped model lives, and the runner, which holds it, is part of a reference cycle.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
