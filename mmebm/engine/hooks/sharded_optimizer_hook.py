"""Checkpoints of an optimiser whose state is sharded over several processes."""

from collections.abc import Callable
from functools import partial

from mmengine.hooks import Hook
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.runner import Runner

from mmebm.registry import HOOKS


@HOOKS.register_module()
class ShardedOptimizerHook(Hook):
    """Lets the runner write checkpoints of a ``ZeroRedundancyOptimizer``.

    Consolidating its state is a collective call, but mmengine's runner saves on rank 0 only and would deadlock.

    Raises:
        ValueError: The optimiser is another one.
    """

    def before_train(self, runner: Runner) -> None:
        """Make the runner consolidate the state before it saves."""
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
    optimizer.consolidate_state_dict = lambda: None  # mmengine would do so again, on rank 0 only
    try:
        save_checkpoint(*args, **kwargs)
    finally:
        del optimizer.consolidate_state_dict
