"""Energy and restoration: the core of the method, and where an energy is differentiated.

One network maps an image x to its energy E(x). A corrupted image x_0 is restored by gradient descent on that energy,

    x_k = x_{k-1} - a * dE/dx(x_{k-1}),        k = 1 .. K,

and training compares every x_k with the clean image, so its backward pass differentiates through dE/dx
(Wang, Wang, Liu, Qiu: Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mmebm.ops.double_backward import SecondOrderOperators

EnergyFn = Callable[[Tensor], Tensor]  # (N, ...) to energies (N,), or to parts of them, (N, M), to be summed
T = TypeVar('T')

# Keeps the float16 gradients of single pixels and tokens from underflowing. A power of two, so scaling is exact.
FP16_ENERGY_SCALE = 2.0**6


class Restoration(NamedTuple):
    """Steps of a restoration: ``images`` x_0 (corrupted) to x_K (restored), K + 1 tensors (N, C, H, W), and energies.

    ``energies`` are E(x_0) to E(x_{K-1}), K tensors (N,), or (N, M) if the energy is in parts: E(x_K) would cost one
    more forward pass.
    """

    images: list[Tensor]
    energies: list[Tensor]


def energy_gradient(
    energy_fn: EnergyFn,
    x: Tensor,
    *,
    create_graph: bool,
    operators: Callable[[], AbstractContextManager] = SecondOrderOperators,
) -> tuple[Tensor, Tensor]:
    """Energy of each image, and its gradient with respect to that image.

    Energies are summed, not averaged, before differentiation: an image's gradient does not depend on the batch size.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,), or to M parts of each, (N, M), which are summed.
        x: Images (N, C, H, W), floating point. If it requires grad, its graph is kept.
        create_graph: Whether the results are differentiable again, with respect to x and the network's weights.
        operators: Makes the context of the forward pass if ``create_graph``: its operators are twice differentiable.

    Returns:
        What ``energy_fn`` returns, and gradients (N, C, H, W) in the dtype of x.

    Raises:
        ValueError: The energy is not of shape (N,) or (N, M).
        RuntimeError: Called inside ``torch.inference_mode()``, which, unlike ``torch.no_grad()``, cannot be undone.
    """
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError(
            'restoration differentiates the energy, which torch.inference_mode() forbids: call it inside '
            'torch.no_grad() instead'
        )
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        with operators() if create_graph else nullcontext():
            energy = energy_fn(x)
        if energy.dim() not in (1, 2) or len(energy) != len(x):
            raise ValueError(
                f'energy_fn must return a number per image, ({len(x)},), or its parts, ({len(x)}, M); not '
                f'{tuple(energy.shape)}'
            )
        scale = FP16_ENERGY_SCALE if autocasts_to(torch.float16, x) else 1.0
        # Autocast is the caller's for the forward pass; each operator's backward follows its forward's precision.
        with torch.autocast(x.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(energy.sum() * scale, x, create_graph=create_graph)
            gradient = gradient / scale
    return energy if create_graph else energy.detach(), gradient


def restoration_step(
    energy_fn: EnergyFn, x: Tensor, step_size: float | Tensor, *, create_graph: bool, gradient_fn=energy_gradient
) -> tuple[Tensor, Tensor]:
    """One step of gradient descent on the energy.

    Args:
        energy_fn: As in ``energy_gradient``.
        x: Images (N, C, H, W), normalised as the network expects them.
        step_size: a > 0, a number or a tensor that can be multiplied with x.
        create_graph: Whether the results are differentiable with respect to the network's weights.
        gradient_fn: ``energy_gradient``, or a function of its signature; its errors are passed on.

    Returns:
        Images x - a * dE/dx, (N, C, H, W), and what ``energy_fn`` returns for x.
    """
    energy, gradient = gradient_fn(energy_fn, x, create_graph=create_graph)
    return x.detach() - step_size * gradient, energy


def descend(step: Callable[[Tensor], tuple[Tensor, T]], x: Tensor, num_steps: int) -> Iterator[tuple[Tensor, T]]:
    """Yields x_1 to x_K, (N, ...), each with the second output of its step.

    x is detached between steps: each is a one-step problem, so no loss over them differentiates a third time.

    Args:
        step: Maps x_{k-1} (N, ...) to x_k (N, ...) and a second output.
        x: x_0, (N, ...).
        num_steps: K.
    """
    for _ in range(num_steps):
        restored, other = step(x.detach())
        yield restored, other
        x = restored


def restore(energy_fn: EnergyFn, x: Tensor, step_size: float | Tensor, num_steps: int) -> Restoration:
    """Restore corrupted images by ``num_steps`` steps of gradient descent on their energy.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,), or to parts (N, M) of these.
        x: Corrupted images x_0 (N, C, H, W), normalised as the network expects them.
        step_size: a > 0, a number or a tensor of one element.
        num_steps: K >= 1.

    Raises:
        ValueError: ``num_steps`` is less than 1, ``step_size`` has several elements, the images are integers, or the
            energies are not of shape (N,) or (N, M).
    """
    if num_steps < 1:
        raise ValueError(f'num_steps must be at least 1, not {num_steps}')
    if isinstance(step_size, Tensor) and step_size.numel() != 1:
        raise ValueError(f'step_size must be a number or a tensor of one element, not of {tuple(step_size.shape)}')
    if not x.is_floating_point():
        raise ValueError(f'x must be images in floating point, normalised as the network expects them, not {x.dtype}')
    if x.is_inference():  # made in torch.inference_mode(), which forbids their gradient even outside it
        x = x.clone()
    step = partial(restoration_step, energy_fn, step_size=step_size, create_graph=False)
    images, energies = zip(*descend(step, x, num_steps), strict=True)
    return Restoration([x, *images], [*energies])


def autocasts_to(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether autocast is on for the device of x, and casts to ``dtype``."""
    device = x.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == dtype
