"""Computes the loss of a training batch that the algorithm defines: compiled, in micro-batches, or with low memory."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import get_device_states

from mmebm.energy import EnergyFn, descend, energy_gradient
from mmebm.ops.attention import explicit_attention, recomputed_attention
from mmebm.ops.checkpointing import block_checkpointing, residual_blocks
from mmebm.ops.double_backward import SecondOrderOperators
from mmebm.option_check import check_whole_numbers
from mmebm.training_step.compiled import Compiled
from mmebm.training_step.gradient_check import check_gradients
from mmebm.training_step.low_memory import LowMemoryGradient
from mmebm.training_step.parts import SumInParts, split, trainable

ATTENTIONS = {'explicit': explicit_attention, 'recomputed': recomputed_attention}


class TrainingStep:
    """Computes the loss of a training batch. All options give the same gradients.

    Args:
        model: The model that is trained.
        step: One restoration step with its loss: maps x_{k-1} (N, ...) and a batch to x_k (N, ...) and losses by name.
            It differentiates its energy by ``gradient_fn``. A batch is nested tuples of tensors (N, ...) and None.
        num_steps: K, restoration steps; their losses are added.
        compile: Whether to compile the step, inner gradient included, as one graph. The first step then takes a minute
            or more; where the compiler fails, training warns and continues without it. (Not the runner's own
            ``compile``, which would differentiate a compiled module twice.)
        micro_batch: Images whose activations exist at a time: a batch is differentiated in such parts. None: all.
        low_memory: Whether to recompute activations block by block instead of keeping them: at larger batches, less
            memory than a supervised step; 1.7 times the time.
        attention: ``explicit``; or ``recomputed``, which saves no L x L matrix, for long sequences (not with
            ``compile`` or ``low_memory``, which need none).

    Raises:
        ValueError: Unknown ``attention``, ``micro_batch`` below 1, or options that exclude each other.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Callable[[Tensor, Any], tuple[Tensor, dict[str, Tensor]]],
        num_steps: int = 1,
        *,
        compile: bool = False,
        micro_batch: int | None = None,
        low_memory: bool = False,
        attention: Literal['explicit', 'recomputed'] = 'explicit',
    ) -> None:
        if attention not in ATTENTIONS:
            raise ValueError(f'training_step: attention must be one of {list(ATTENTIONS)}, not {attention!r}')
        if micro_batch is not None:
            check_whole_numbers('training_step', micro_batch=micro_batch)
        if attention != 'explicit' and (compile or low_memory):
            other = 'compile' if compile else 'low_memory'
            raise ValueError(f'training_step: {other}=True excludes attention={attention!r}, which it does not need')
        if compile and low_memory:
            raise ValueError(
                'training_step: compile=True excludes low_memory=True, which the compiler would not differentiate '
                'correctly'
            )
        self.model = model
        self.step = Compiled(step, model) if compile else step
        self.num_steps = num_steps
        self.micro_batch = micro_batch
        self.low_memory = low_memory
        operators = partial(SecondOrderOperators, ATTENTIONS[attention])
        self.gradient_fn = LowMemoryGradient(model) if low_memory else partial(energy_gradient, operators=operators)
        self.sum_in_parts = SumInParts()

    def __call__(self, start: Tensor, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """Losses by name, scalars, and x_K (N, ...), detached.

        Args:
            start: x_0, (N, ...).
            batch: The batch of ``step``.
        """
        if self.num_steps == 1 and (self.micro_batch or len(start)) >= len(start):
            restored, losses = self._step(start.detach(), batch)
            return losses, restored.detach()
        totals: dict[str, Tensor] = {}
        images: list[Tensor] = []
        total = self.sum_in_parts(self._one_by_one(start, batch, totals, images), trainable(self.model))
        first = next(name for name in totals if 'loss' in name)
        totals[first] = totals[first] + (total - total.detach())  # adds nothing but the gradients
        return totals, torch.cat(images)

    def _one_by_one(
        self, start: Tensor, batch: Any, totals: dict[str, Tensor], images: list[Tensor]
    ) -> Iterator[Tensor]:
        """The loss of every part and step. Adds values to ``totals`` and x_K to ``images``."""
        for (x, part), share in self.parts((start, batch)):
            for image, losses in descend(partial(self._step, batch=part), x, self.num_steps):  # noqa: B007
                for name, value in losses.items():
                    portion = share if 'loss' in name else share / self.num_steps  # statistics are means
                    totals[name] = totals.get(name, 0) + portion * value.detach()
                yield share * sum(value for name, value in losses.items() if 'loss' in name)  # type: ignore[misc]
            images.append(image.detach())

    def _step(self, x: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.step(x.requires_grad_(), batch)  # to be differentiated, x must be an input of the compiled function

    def parts(self, batch: Any) -> Iterator[tuple[Any, float]]:
        """The micro-batches of a batch, each with its share of the images."""
        return split(batch, self.micro_batch)

    def recomputing(self) -> AbstractContextManager[None]:
        """Context for computations of a step before the energy: with ``low_memory``, blocks keep their inputs only."""
        return block_checkpointing(residual_blocks(self.model) if self.low_memory else [])

    def check(self, energy_of: Callable[[nn.Module, Any], EnergyFn], start: Tensor, batch: Any) -> None:
        """Check, on a first batch, that the gradients are exact.

        Args:
            energy_of: Maps the model or a copy of it, and a batch, to the energy function of x.
            start: x_0, (N, ...).
            batch: The batch of ``step``.

        Raises:
            ValueError: The model has batch normalisation, and a batch is split or computed twice.
            RuntimeError: Second derivatives of this model are wrong or do not exist, or low-memory gradients are wrong.
        """
        normalizations = [
            name for name, module in self.model.named_modules() if isinstance(module, _BatchNorm) and module.training
        ]
        if normalizations and (self.micro_batch is not None or self.low_memory):
            raise ValueError(
                f'{normalizations[0]}: with micro_batch, batch normalisation sees other images, and with '
                'low_memory=True its running statistics move twice; use GN or LN, or a smaller batch'
            )
        # One image has no variance where a map is one pixel.
        (first, part), _ = next(split((start, batch), 2 if normalizations else 1))
        self._check_gradients(energy_of, first, part)
        if isinstance(self.gradient_fn, LowMemoryGradient):
            # A resumed run, which checks again, must draw what an uninterrupted one does.
            with torch.random.fork_rng(get_device_states(first)[0], device_type=first.device.type):
                self.gradient_fn.check(energy_of(self.model, part), first)

    def _check_gradients(self, energy_of: Callable[[nn.Module, Any], EnergyFn], x: Tensor, batch: Any) -> None:
        try:
            copied = copy.deepcopy(self)
        except (RuntimeError, TypeError) as error:
            warnings.warn(f'second derivatives are not checked, as the model cannot be copied: {error}', stacklevel=2)
            return
        copied.low_memory, copied.gradient_fn = False, partial(energy_gradient)
        copied.step = copied.step.function if isinstance(copied.step, Compiled) else copied.step
        check_gradients(copied.model, energy_of, copied._loss, x, batch)

    def _loss(self, x: Tensor, batch: Any) -> Tensor:
        """The loss of one step."""
        return sum(value for name, value in self.step(x, batch)[1].items() if 'loss' in name)  # type: ignore[return-value]
