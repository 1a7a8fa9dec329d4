"""The repeated blocks of a network, and a backward pass that recomputes them one by one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmebm.ops.forward_mode import DualOperators


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: a transformer's layers, the residual blocks of a CNN; empty if there are none.

    They are the members of the innermost ``ModuleList`` or ``Sequential`` whose members are composite and of one class.
    """
    return [*dict.fromkeys(block for stack in _stacks(model) for block in stack)]  # shared ones once


def _stacks(module: nn.Module) -> list[list[nn.Module]]:
    inner = [stack for child in module.children() for stack in _stacks(child)]
    if inner or not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return inner
    types = {type(child) for child in module}
    is_stack = len(types) == 1 and not types & {nn.ModuleList, nn.Sequential}
    return [list(module)] if is_stack and all(len(list(child.children())) for child in module) else []


@contextmanager
def block_checkpointing(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Context in which the blocks keep their inputs only, and are recomputed in the backward pass.

    With dual tensors of forward-mode differentiation, a block that does not return one tensor raises TypeError.
    """
    for block in blocks:
        # On the instance: nothing is renamed or wrapped. Removed below, so that the model can be copied.
        block.forward = partial(_checkpointed, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _checkpointed(forward, x: Tensor, *args, **kwargs):
    primal, tangent = fwAD.unpack_dual(x) if _is_dual_level_open() else (x, None)
    if tangent is None:
        return checkpoint(forward, x, *args, use_reentrant=False, **kwargs)

    def dual_forward(primal: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        # Both contexts are entered again: when this is recomputed, the first ones are closed.
        with nullcontext() if _is_dual_level_open() else fwAD.dual_level(), DualOperators():
            out = forward(fwAD.make_dual(primal, tangent), *args, **kwargs)
            if not isinstance(out, Tensor):
                raise TypeError(
                    f'low_memory needs blocks that return one tensor, not a {type(out).__name__}: '
                    'use micro_batch instead'
                )
            return tuple(fwAD.unpack_dual(out))

    # A checkpoint keeps plain tensors: a dual one would lose its tangent.
    return fwAD.make_dual(*checkpoint(dual_forward, primal, tangent, use_reentrant=False))


def _is_dual_level_open() -> bool:
    return fwAD._current_level >= 0
