"""A training step compiled as one graph with its backward pass."""

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as functorch_config
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler, OperatorIssue, SubgraphLoweringException

# What the compiler raises when it cannot do something; not what the compiled code itself raises.
COMPILER_ERRORS = (
    TorchDynamoException,
    CppCompileError,
    InvalidCxxCompiler,
    OperatorIssue,
    SubgraphLoweringException,
)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Compiled:
    """A function compiled as one graph with its backward pass, or, from where the compiler fails on, the function.

    What is no fault of the compiler's is raised as it is: memory or disk that is full, and the function's own errors.

    Args:
        function: What to compile.
        model: The network that it calls.
    """

    def __init__(self, function: Callable, model: nn.Module) -> None:
        self.function = function
        self.model = model
        self._compiled: Callable | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether calls run the compiled function; False before the first one."""
        return self._compiled not in (None, self.function)

    def __call__(self, *args):
        """What the function returns; the first call compiles, and so does the first one of another batch size."""
        if self._compiled is self.function:
            return self.function(*args)
        try:
            with _compiler_settings():
                return self._compile()(*args)
        except COMPILER_ERRORS as error:
            if (full := _full(error)) is not None:
                raise full from error
            result = self.function(*args)  # raises what is wrong with the function itself
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f'compile=True does not work here, training continues without it: {reason}', stacklevel=2)
            self._compiled = self.function
            return result

    def _compile(self) -> Callable:
        if self._compiled is None:
            make_traceable(self.model)
            # Static shapes: the last, smaller batch of an epoch is compiled on its own and slows down no other.
            self._compiled = torch.compile(self.function, fullgraph=True, dynamic=False)
        return self._compiled


def _full(error: BaseException) -> BaseException | None:
    """Behind an error of the compiler's, one that says that memory or disk is full; None if there is none."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        is_full_disk = isinstance(cause, OSError) and cause.errno in NO_SPACE
        if is_full_disk or isinstance(cause, (torch.OutOfMemoryError, MemoryError)):
            return cause
        pending += [cause.__cause__, cause.__context__, getattr(cause, 'inner_exception', None)]
    return None


@contextmanager
def _compiler_settings() -> Iterator[None]:
    """Lets the compiler trace ``torch.autograd.grad``, and has it compile the backward pass together with the forward.

    Left until ``loss.backward()``, a backward pass that does not compile would raise too late to continue without it.
    And the graph is not split into the buckets of DistributedDataParallel, which no gradient would cross.
    """
    with (
        torch._dynamo.config.patch(trace_autograd_ops=True, optimize_ddp=False),
        functorch_config.patch(force_non_lazy_backward_lowering=True),
    ):
        yield


def make_traceable(model: nn.Module) -> None:
    """Replace what stops the compiler: numbers of NumPy among the attributes, such as mmpretrain's drop path rates."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, np.generic):
                setattr(module, name, value.item())
