"""Checkpoints of an optimiser whose state lies in parts on several processes."""

from collections.abc import Callable
from functools import partial

from mmengine.hooks import Hook
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.runner import Runner

from mmebm.registry import HOOKS


@HOOKS.register_module()
class ShardedOptimizerHook(Hook):
    """Lets the runner write checkpoints of a ``ZeroRedundancyOptimizer``.

    All processes have to take part in collecting its state. But mmengine's runner saves in the first process alone,
    which asks the others and waits for ever.

    Raises:
        ValueError: If the optimiser is another one.
    """

    def before_train(self, runner: Runner) -> None:
        """Let the runner collect the state before it saves."""
        optimizer = runner.optim_wrapper.optimizer
        if not isinstance(optimizer, ZeroRedundancyOptimizer):
            raise ValueError(
                f'ShardedOptimizerHook is for ZeroRedundancyOptimizer, not for {type(optimizer).__name__}: set '
                "optim_wrapper.optimizer.type='ZeroRedundancyOptimizer' or remove the hook."
            )
        runner.save_checkpoint = partial(_collect_and_save, optimizer, runner.save_checkpoint)


def _collect_and_save(optimizer: ZeroRedundancyOptimizer, save_checkpoint: Callable, *args, **kwargs) -> None:
    """``Runner.save_checkpoint``; every process calls this."""
    optimizer.consolidate_state_dict()
    optimizer.consolidate_state_dict = lambda: None  # mmengine would do so again, in the first process alone
    try:
        save_checkpoint(*args, **kwargs)
    finally:
        del optimizer.consolidate_state_dict
