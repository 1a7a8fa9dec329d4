"""Runs in which there is nothing to measure."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from mmengine.hooks import Hook
from mmengine.runner import Runner

HookType = TypeVar('HookType', bound=type[Hook])


def idle_in_dry_runs(hook: HookType) -> HookType:
    """Class decorator of hooks that need images or a model: in a dry run, what they do in training is left out."""
    for stage in Hook.stages:
        if 'train' in stage and stage in vars(hook):
            setattr(hook, stage, _unless_dry(vars(hook)[stage]))
    return hook


def is_dry_run(runner: Runner) -> bool:
    """Whether a run has neither images nor a model.

    mmpretrain's ``vis_scheduler`` plots the learning rates of a config by running it, hooks included, over a list of
    numbers in place of a data loader, with a model that computes nothing.
    """
    loader = runner.train_dataloader
    return isinstance(loader, list) and all(isinstance(batch, int) for batch in loader[:1])


def _unless_dry(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def method_unless_dry(self: Hook, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not is_dry_run(runner):
            method(self, runner, *args, **kwargs)

    return method_unless_dry
