"""A training step compiled as one graph with its backward pass."""

import errno
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch._dynamo import exc
from torch._functorch import config as functorch_config
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler, OperatorIssue, SubgraphLoweringException

# Raised by the compiler for what it does not support; errors of the compiled code itself are not among them.
COMPILER_ERRORS = (
    exc.TorchDynamoException,
    getattr(exc, 'FailOnRecompileLimitHit', exc.TorchDynamoException),  # of another base class
    CppCompileError,
    InvalidCxxCompiler,
    OperatorIssue,
    SubgraphLoweringException,
)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Compiled:
    """A function compiled as one graph with its backward pass; once the compiler fails, the plain function.

    Other errors are raised unchanged: full memory or disk, and the function's own errors.

    Args:
        function: What to compile.
        model: The network that it calls.
    """

    def __init__(self, function: Callable, model: nn.Module) -> None:
        self.function = function
        self.model = model
        self._compiled: Callable | None = None
        self._batch_sizes: set[int] = set()

    def __getstate__(self) -> dict:
        return vars(self) | dict(_compiled=None, _batch_sizes=set())  # which would call the original model from a copy

    @property
    def is_compiled(self) -> bool:
        """Whether calls run the compiled function; False before the first one."""
        return self._compiled not in (None, self.function)

    def __call__(self, x: Tensor, *args):
        """The function's result for x (N, ...). The first call of each batch size N compiles, and says so."""
        if self._compiled is self.function:
            return self.function(x, *args)
        try:
            with _compiler_settings(), self._announced(len(x)):
                return self._compile()(x, *args)
        except COMPILER_ERRORS as error:
            if (full := _full(error)) is not None:
                raise full from error
            result = self.function(x, *args)  # raises what is wrong with the function itself
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f'compile=True does not work here, training continues without it: {reason}', stacklevel=2)
            self._compiled = self.function
            return result

    @contextmanager
    def _announced(self, batch_size: int) -> Iterator[None]:
        """Says before and after the first call of a batch size that it compiles, since it takes so long."""
        if batch_size in self._batch_sizes:
            yield
            return
        print_log(
            f'Compiling the training step for {batch_size} images (minutes on few cores; '
            '--cfg-options model.training_step.compile=False skips it)',
            logger='current',
        )
        start = time.perf_counter()
        yield
        self._batch_sizes.add(batch_size)
        print_log(f'Compiled in {time.perf_counter() - start:.0f} s', logger='current')

    def _compile(self) -> Callable:
        if self._compiled is None:
            make_traceable(self.model)
            # Static shapes: the last, smaller batch of an epoch is compiled separately and slows down no other.
            self._compiled = torch.compile(self.function, fullgraph=True, dynamic=False)
        return self._compiled


def _full(error: BaseException) -> BaseException | None:
    """The error of a full memory or disk that caused a compiler error; None if there is none."""
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

    Compiled only in ``loss.backward()``, a backward pass that fails to compile would raise too late to fall back. The
    graph is not split at the buckets of DistributedDataParallel, since no gradient would cross them.
    """
    with (
        torch._dynamo.config.patch(trace_autograd_ops=True, optimize_ddp=False),
        functorch_config.patch(force_non_lazy_backward_lowering=True),
    ):
        yield


def make_traceable(model: nn.Module) -> None:
    """Replace NumPy scalars in modules' attributes, such as mmpretrain's drop path rates: the compiler rejects them."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, np.generic):
                setattr(module, name, value.item())
