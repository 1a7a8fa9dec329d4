"""What of a model changes without its optimiser: running statistics, codebooks, a calibrated step size."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Snapshot:
    """Copies of tensors, to undo a forward pass.

    The first forward pass may also set weights that are trained later, so all are copied then, to the CPU; afterwards
    buffers and frozen weights alone.

    Args:
        model: Whose tensors are meant; modules in evaluation mode change nothing.
        is_first: Whether the model has made no step.
    """

    def __init__(self, model: nn.Module, is_first: bool) -> None:
        self.model = model
        self.begins = is_first and getattr(model, '_is_first_batch', False)  # of mmebm's BaseRestorer
        self.tensors = [*_changing(model, with_trained=self.begins)]
        self.copies = [t.detach().to('cpu' if self.begins else t.device, copy=True) for t in self.tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what has changed."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(copy)
        if self.begins:
            self.model._is_first_batch = True

    @torch.no_grad()
    def update(self) -> None:
        """Copy the present values."""
        if self.copies:  # version counters do not tell what has changed: not all operators count
            torch._foreach_copy_(self.copies, self.tensors)


def _changing(model: nn.Module, with_trained: bool) -> Iterator[Tensor]:
    for module in model.modules():
        if module.training:
            yield from module.buffers(recurse=False)
            yield from (p for p in module.parameters(recurse=False) if with_trained or not p.requires_grad)
