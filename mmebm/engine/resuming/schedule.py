"""Hyper-parameters and schedules of the run that resumes, against those in the checkpoint."""

import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner

from mmebm.engine.resuming.settings import new_training

# What of a scheduler's state changes from step to step.
PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose', 'best', 'num_bad_epochs', 'cooldown_counter'}


def hyperparameters(runner: Runner) -> list[dict[str, Any]]:
    """A copy of the present hyper-parameters of each group of parameters."""
    return [{key: value for key, value in group.items() if key != 'params'} for group in _groups(runner)]


def same_optimizer(checkpoint: Mapping[str, Any], runner: Runner, path: str) -> bool:
    """Whether a checkpoint's optimiser has the present hyper-parameters, but for what schedules change.

    Raises:
        ValueError: It has other groups of parameters.
    """
    state, present = checkpoint['optimizer'], _groups(runner)
    stored = [*state['param_groups'], *([state['base_param_settings']] if 'base_param_settings' in state else [])]
    sizes = [len(group['params']) for group in state['param_groups']]
    present_sizes = [len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
    if sizes != present_sizes or len(stored) != len(present):
        raise ValueError(
            f'{path} has {len(sizes)} groups of {sum(sizes)} parameters in its optimiser, and the present settings '
            f'make {len(present_sizes)} of {sum(present_sizes)}: optim_wrapper.paramwise_cfg, or what is frozen, is '
            f'another one. Set it as it was, or {new_training(path)}'
        )
    return all(map(_same_group, stored, present))


def same_schedule(checkpoint: Mapping[str, Any], runner: Runner, path: str) -> bool:
    """Whether a checkpoint's schedulers are the present ones, at any step.

    Raises:
        ValueError: They are not, and the present ones depend on validations that are past.
    """
    schedulers = runner.param_schedulers or []
    stored = checkpoint.get('param_schedulers') or []
    if [*map(_constants, stored)] == [_constants(scheduler.state_dict()) for scheduler in schedulers]:
        return True
    if plateau := [scheduler for scheduler in schedulers if getattr(scheduler, 'need_val_args', False)]:
        raise ValueError(
            f'{path} has no state of the present schedule (param_scheduler), and that of {type(plateau[0]).__name__} '
            f'depends on validations that are past. Set the schedule as it was, or {new_training(path)}'
        )
    return False


def replay(runner: Runner) -> None:
    """Take freshly built schedulers through all steps that the training has done."""
    schedulers: list[_ParamScheduler] = runner.param_schedulers or []
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        by_epoch = []
    length = len(runner.train_dataloader)
    with warnings.catch_warnings():  # of schedulers that step before their optimiser
        warnings.simplefilter('ignore')
        for done in range(1, runner.iter + 1):
            for scheduler in by_iteration:
                scheduler.step()
            for scheduler in by_epoch if done % length == 0 else []:
                scheduler.step()


def _groups(runner: Runner) -> list[dict[str, Any]]:
    """The groups of parameters, and the one that mmengine reads the base learning rate from."""
    return runner.optim_wrapper.param_groups


def _same_group(stored: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
    scheduled = {key for key in present if f'initial_{key}' in present}
    return all(stored.get(key, value) == value for key, value in present.items() if key not in scheduled | {'params'})


def _constants(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in PROGRESS}
