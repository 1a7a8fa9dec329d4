"""Stands between a model's gradients and its optimiser, and lets no faulty step through."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn

from mmebm.engine.faulty_steps.random_state import random_state
from mmebm.engine.faulty_steps.snapshot import Snapshot
from mmebm.engine.faulty_steps.spikes import Spikes
from mmebm.model_building import unwrapped

# How sure it is that a fault is one of this process's batch: all processes share their gradients.
NONE, OF_GRADIENT, OF_LOSS = range(3)


@dataclass
class Fault:
    """What is wrong with a batch.

    Attributes:
        text: In words.
        kind: ``OF_GRADIENT`` or ``OF_LOSS``.
        batch: As the data loader made it.
        random: Random states before the forward pass.
        losses: By name, once they are known.
    """

    text: str
    kind: int
    batch: Any
    random: dict[str, Any]
    losses: dict[str, float] = field(default_factory=dict)


class StepGuard:
    """Replaces ``update_params`` of an optimiser's wrapper: a step with a fault is left out in all processes alike.

    A fault is a loss or a norm of gradients that is not finite, or a spike of one. Gradients that are not finite
    although the loss is are left to ``AmpOptimWrapper`` while its scale of the loss can still fall. With accumulated
    gradients, a fault of one batch leaves out the step of all of them, and spikes are those of their sum.

    Args:
        wrapper: Of one optimiser, with mmengine's own ``update_params``.
        model: The model that is trained, maybe wrapped.
        loss_spikes: Of the loss; None: not looked for.
        norm_spikes: Of the norm of gradients; None: not looked for.
    """

    def __init__(
        self, wrapper: OptimWrapper, model: nn.Module, loss_spikes: Spikes | None, norm_spikes: Spikes | None
    ) -> None:
        self.wrapper = wrapper
        self.model = unwrapped(model)
        self.spikes = loss_spikes, norm_spikes
        self.snapshot: Snapshot | None = None
        self.batch: Any = None
        self.fault: Fault | None = None
        self.is_skipped = self.has_stepped = False
        self._context: Callable[[nn.Module], AbstractContextManager] = wrapper.optim_context
        self._random: dict[str, Any] = {}
        wrapper.optim_context = self._optim_context  # type: ignore[method-assign]
        wrapper.update_params = self._update_params  # type: ignore[method-assign]

    @staticmethod
    def can_guard(wrapper: Any) -> bool:
        """Whether a wrapper's steps can be left out."""
        return isinstance(wrapper, OptimWrapper) and type(wrapper).update_params is OptimWrapper.update_params

    def begin(self, batch: Any) -> None:
        """Prepare for a batch of the data loader."""
        self.batch, self.is_skipped, self.has_stepped = batch, False, False
        if self.wrapper.inner_count % self.wrapper._accumulative_counts == 0:
            self.fault = None

    def release(self) -> None:
        """Let the wrapper be as it was."""
        for name in ('optim_context', 'update_params'):
            vars(self.wrapper).pop(name, None)

    def _optim_context(self, model: nn.Module) -> AbstractContextManager:
        if model.training:  # else a hook measures
            if self.wrapper.inner_count % self.wrapper._accumulative_counts == 0:
                self._take_snapshot()
            self._random = random_state()
        return self._context(model)

    def _take_snapshot(self) -> None:
        """Just before a step: hooks, and rolling back, may have set what the model does not train."""
        if self.snapshot is None or (self.snapshot.begins and not self.model._is_first_batch):
            self.snapshot = Snapshot(self.model, is_first=self.snapshot is None)
        else:
            self.snapshot.update()

    def _update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        wrapper = self.wrapper
        wrapper.backward(wrapper.scale_loss(loss))
        kind, text = self._judge(loss)
        if kind and (self.fault is None or kind > self.fault.kind):
            self.fault = Fault(text, kind, self.batch, self._random)
        if not wrapper.should_update():
            return
        self.is_skipped = self._agreed(self.fault.kind if self.fault else NONE)
        if self.is_skipped:
            if self.snapshot is not None:
                self.snapshot.restore()
        else:
            wrapper.step(**(step_kwargs or {}))
            self.has_stepped = True
        wrapper.zero_grad(**(zero_kwargs or {}))

    def _judge(self, loss: Tensor) -> tuple[int, str]:
        """The kind of a fault, and its text."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else loss.new_zeros(())
        values = torch.stack([loss.detach().float().mean(), norm.float()]).tolist()  # waits for the device once
        scaler = self.wrapper.loss_scaler if isinstance(self.wrapper, AmpOptimWrapper) else None
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
        names = 'loss', 'norm of gradients'
        kinds = OF_LOSS, OF_GRADIENT
        for name, kind, value, spikes in zip(names, kinds, (values[0], values[1] / scale), self.spikes, strict=True):
            if not math.isfinite(value):
                left_to_scaler = kind == OF_GRADIENT and scale > 1
                return (NONE, '') if left_to_scaler else (kind, f'the {name} is {value}')
            is_whole = kind == OF_LOSS or self.wrapper.should_update()  # norms of partial sums are lower
            if spikes and is_whole and spikes.is_spike(value):
                limit = f'{spikes.limit():.4g}, {spikes.sigmas:g} standard deviations above the mean of the last'
                return kind, f'the {name} is {value:.4g}, more than {limit}'
        return NONE, ''

    def _agreed(self, kind: int) -> bool:
        """Whether any process has a fault; this one's is forgotten if another's is surer."""
        if get_world_size() > 1:
            highest = torch.tensor(kind, device=next(self.model.parameters()).device)
            all_reduce(highest, 'max')
            if kind < int(highest):
                self.fault = None
            kind = int(highest)
        return kind > NONE
