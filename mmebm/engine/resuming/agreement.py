"""Decisions that all processes of a training take at the same iteration."""

import torch
from mmengine.dist import get_world_size


class Agreement:
    """Whether any process has said yes, without making the accelerator wait.

    The answer of several processes is that of their call before: it travels between the CPUs (gloo) while the next
    iteration is computed. A single process has its answer at once. Every process must make the same calls.
    """

    def __init__(self) -> None:
        self._group = torch.distributed.new_group(backend='gloo') if get_world_size() > 1 else None
        self._pending: tuple[torch.distributed.Work, torch.Tensor] | None = None
        self._agreed = False

    def ask(self, says_yes: bool) -> bool:
        """Whether any process has said yes since ``reset``, as far as known; and with it, what this process says."""
        if self._group is None:
            self._agreed |= says_yes
            return self._agreed
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            self._agreed |= bool(flag.item())
        flag = torch.tensor([says_yes], dtype=torch.uint8)
        options = dict(op=torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (torch.distributed.all_reduce(flag, **options), flag)
        return self._agreed

    def reset(self) -> None:
        """Forget all that was said, also what is still on its way."""
        if self._pending is not None:
            self._pending[0].wait()
        self._pending, self._agreed = None, False

    def least(self, number: int) -> int:
        """The smallest of all processes' numbers."""
        if self._group is None:
            return number
        value = torch.tensor([number])
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MIN, group=self._group)
        return int(value.item())
