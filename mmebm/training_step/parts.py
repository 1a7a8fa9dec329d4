"""A loss summed over parts of a batch, with the graph of one part in memory at a time."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from mmebm.energy import autocasts_to

Batch = TypeVar('Batch')

# In float16, before the first backward pass. A power of two, so scaling is exact.
FP16_LOSS_SCALE = 2.0**14


class SumInParts:
    """Sums losses that are computed one by one, with the memory of one.

    Each loss is differentiated before the next is computed. The sum carries these gradients: its backward pass only
    passes them on, so distributed training, gradient accumulation and clipping work as usual.

    In float16 the losses are scaled by the gradient that the last backward pass received, the scale of the caller's
    gradient scaler: after an overflow, the scaler lowers its scale, and so the next one here.
    """

    def __init__(self) -> None:
        self.fp16_scale: float | Tensor = FP16_LOSS_SCALE

    def __call__(self, losses: Iterable[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The sum, a scalar.

        Args:
            losses: Yields scalars, each computed on demand.
            parameters: Differentiated with respect to these.
        """
        total: Tensor | None = None
        gradients: list[Tensor | None] = [None] * len(parameters)
        scale = self.fp16_scale if autocasts_to(torch.float16, parameters[0]) else 1.0
        for loss in losses:
            with torch.autocast(loss.device.type, enabled=False):
                parts: list[Tensor | None] = [*torch.autograd.grad(loss * scale, parameters, allow_unused=True)]
            for i in range(len(parts)):
                part, parts[i] = parts[i], None  # freed one by one
                if part is not None:
                    so_far = gradients[i]
                    gradients[i] = part.clone() if so_far is None else so_far.add_(part)
            total = loss.detach() if total is None else total + loss.detach()
        return _WithGradients.apply(total, gradients, scale, self, *parameters)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, total, gradients, scale, owner, *parameters):
        ctx.gradients, ctx.scale, ctx.owner = gradients, scale, owner
        return total.clone()

    @staticmethod
    def backward(ctx, factor):
        gradients, ctx.gradients = ctx.gradients, None  # passed on, not kept
        ctx.owner.fp16_scale = factor
        factor = factor / ctx.scale
        return None, None, None, None, *(None if g is None else g.mul_(factor) for g in gradients)


def split(batch: Batch, size: int | None) -> Iterator[tuple[Batch, float]]:
    """Yields parts of a batch, each with its share of the N images, above 0 to 1.

    Args:
        batch: Nested tuples of tensors (N, ...) and None; the first leaf is a tensor.
        size: Images per part; the last part may have fewer. None: a single part.
    """
    num_images = len(tree_leaves(batch)[0])
    for start in range(0, num_images, size or num_images):
        stop = min(start + (size or num_images), num_images)
        yield tree_map_only(Tensor, lambda tensor: tensor[start:stop], batch), (stop - start) / num_images  # noqa: B023


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a model that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
