"""How a training step is computed: eagerly or compiled, at once or in parts, fast or in little memory."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from mmebm.energy import LowMemoryGradient, SumInParts, energy_gradient, restoration_step, trainable
from mmebm.ops.attention import explicit_attention, recomputed_attention

ATTENTIONS = {'explicit': explicit_attention, 'recomputed': recomputed_attention}


class TrainingPair(NamedTuple):
    """A batch, or a part of one.

    Attributes:
        corrupted: (N, C, H, W).
        clean: (N, C, H, W).
        kept: Indices (N, M) of the patches that the network sees; None for all.
        where: Mask (N, H, W) of their pixels, True = counts; None for all.
    """

    corrupted: Tensor
    clean: Tensor
    kept: Tensor | None
    where: Tensor | None

    def squared_error(self, images: Tensor) -> Tensor:
        """Sum of squared differences of images (N, C, H, W) from the clean ones, where pixels count."""
        error = (images - self.clean).square().sum(dim=1)
        return error.sum() if self.where is None else (error * self.where).sum()

    def split(self, size: int) -> Iterator['TrainingPair']:
        """Parts of ``size`` images and a rest."""
        for start in range(0, len(self.clean), size):
            yield TrainingPair(*(None if field is None else field[start : start + size] for field in self))


class TrainingStep:
    """Loss of a training batch. Every way to compute it gives the same gradients.

    Args:
        model: An ``EBMAlgorithm``.
        compile: Compile a restoration step with its loss and its inner gradient as one graph; if that fails, warn and
            go on eagerly.
        low_memory: Recompute, block by block, instead of keeping activations.
        attention: ``explicit``, or ``recomputed``, which saves no L x L matrix.
        micro_batch: Images whose activations exist at a time; None for the whole batch.
        contrast: Weight of the contrast of energies.

    Raises:
        ValueError: Unknown ``attention``, ``micro_batch`` below 1, negative ``contrast``, or choices that exclude each
            other.
    """

    def __init__(
        self,
        model: nn.Module,
        compile: bool,
        low_memory: bool,
        attention: str,
        micro_batch: int | None,
        contrast: float,
    ) -> None:
        if attention not in ATTENTIONS:
            raise ValueError(f'EBMAlgorithm: attention must be one of {list(ATTENTIONS)}, not {attention!r}')
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f'EBMAlgorithm: micro_batch must be at least 1, not {micro_batch}')
        if compile and (low_memory or attention != 'explicit'):
            raise ValueError(
                "EBMAlgorithm: compile=True excludes low_memory=True and attention='recomputed', which the compiler "
                'would not differentiate correctly'
            )
        if contrast < 0:
            raise ValueError(f'EBMAlgorithm: contrast must be at least 0, not {contrast}')
        if contrast and low_memory:
            raise ValueError(
                'EBMAlgorithm: low_memory=True excludes contrast, since it differentiates no energy; use micro_batch'
            )
        self.model = model
        self.compile = compile
        self.micro_batch = micro_batch
        self.contrast = contrast
        self.low_memory = low_memory
        self.gradient_fn = (
            LowMemoryGradient(model) if low_memory else partial(energy_gradient, attention=ATTENTIONS[attention])
        )
        self.step = Compiled(self._step, model) if compile else self._step
        self.sum_in_parts = SumInParts()

    def check(self, pair: TrainingPair) -> None:
        """Make sure, on a first batch, that the gradients are exact.

        Raises:
            ValueError: The model has batch normalisation, and a batch is split or computed twice.
            RuntimeError: Low-memory gradients are wrong for this model.
        """
        if self.micro_batch is None and not self.low_memory:
            return
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                raise ValueError(
                    f'{name}: with micro_batch, batch normalisation sees other images, and with low_memory=True its '
                    'running statistics move twice; use GN or LN, or a smaller batch'
                )
        if self.low_memory:
            part = next(pair.split(1))
            self.gradient_fn.check(partial(self.model.energy, kept=part.kept), part.corrupted)

    def __call__(self, pair: TrainingPair) -> tuple[dict[str, Tensor], Tensor]:
        """Losses, as the head names them, and the images that the last restoration step gives, (N, C, H, W)."""
        micro_batch = self.micro_batch or len(pair.clean)
        if self.model.num_steps == 1 and micro_batch >= len(pair.clean):
            losses, restored = self._one(pair.corrupted, pair)
            return losses, restored.detach()
        totals, restored = {}, []
        total = self.sum_in_parts(self._one_by_one(pair, micro_batch, totals, restored), trainable(self.model))
        first = next(name for name in totals if 'loss' in name)
        totals[first] = totals[first] + (total - total.detach())  # adds nothing but the gradients
        return totals, torch.cat(restored)

    def _one_by_one(
        self, pair: TrainingPair, micro_batch: int, totals: dict[str, Tensor], restored: list[Tensor]
    ) -> Iterator[Tensor]:
        """The loss of every part and step. What came of them is added to ``totals`` and ``restored``."""
        for part in pair.split(micro_batch):
            share = len(part.clean) / len(pair.clean)
            images = part.corrupted
            for _ in range(self.model.num_steps):
                losses, images = self._one(images, part)
                images = images.detach()
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0) + share * value.detach()
                yield share * sum(value for name, value in losses.items() if 'loss' in name)
            restored.append(images)

    def _one(self, images: Tensor, pair: TrainingPair) -> tuple[dict[str, Tensor], Tensor]:
        images = (
            images.detach().requires_grad_()
        )  # here: to be differentiated, it has to be an input of what is compiled
        return self.step(images, *pair)

    def _step(
        self, images: Tensor, corrupted: Tensor, clean: Tensor, kept: Tensor | None, where: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        restored, energy = restoration_step(
            partial(self.model.energy, kept=kept),
            images,
            self.model.step_size,
            create_graph=True,
            gradient_fn=self.gradient_fn,
        )
        masked = () if where is None else (where,)  # other heads need not know of masks
        losses = self.model.head.loss([restored], clean, corrupted, *masked)
        if self.contrast:
            contrast = F.softplus(self.model.energy(clean, kept)).mean() + F.softplus(-energy).mean()
            losses['loss_contrast'] = self.contrast * contrast
        return losses, restored


class Compiled:
    """A function compiled as one graph with its backward pass, or, from where that fails on, the function itself.

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
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f'compile=True does not work here, training goes on without it: {reason}', stacklevel=2)
            self._compiled = self.function
            return self.function(*args)

    def _compile(self) -> Callable:
        if self._compiled is None:
            make_traceable(self.model)
            # Static shapes: the last, smaller batch of an epoch is compiled on its own and slows down no other.
            self._compiled = torch.compile(self.function, fullgraph=True, dynamic=False)
        return self._compiled


@contextmanager
def _compiler_settings() -> Iterator[None]:
    """Lets the compiler trace ``torch.autograd.grad``, and has it compile the backward pass together with the forward.

    Left until ``loss.backward()``, a backward pass that does not compile would raise too late to go on without it. And
    the graph is not split into the buckets of DistributedDataParallel, which no gradient would cross.
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
