"""Energy and restoration: the idea of the project, and the only place in it that differentiates.

One network scores an image's energy E(x). A corrupted image x_0 is restored by gradient descent on that energy,

    x_k = x_{k-1} - a * dE/dx(x_{k-1}),        k = 1 .. K,

and training compares every x_k with the clean image, so that its backward pass differentiates through dE/dx
(Wang, Wang, Liu, Qiu: Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384).
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

EnergyFn = Callable[[Tensor], Tensor]


class Restoration(NamedTuple):
    """What ``restore`` went through.

    Attributes:
        images: K + 1 tensors (N, C, H, W): x_0, the corrupted images, to x_K, the restored ones.
        energies: K tensors (N,): E(x_0) to E(x_{K-1}). E(x_K) would cost one more forward pass.
    """

    images: list[Tensor]
    energies: list[Tensor]


def energy_gradient(energy_fn: EnergyFn, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
    """Energy of each image, and its gradient with respect to that image.

    The energies are summed, not averaged, before they are differentiated: an image's gradient does not depend on how
    many others share its batch. Works inside ``torch.no_grad()``, as validation loops do.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,).
        x: Images (N, C, H, W), floating point. If it requires grad, its graph is kept.
        create_graph: Whether the results can be differentiated again, with respect to x and the network's weights.

    Returns:
        Energies (N,) and gradients (N, C, H, W), the latter in the type of x.

    Raises:
        ValueError: The energy is not of shape (N,).
        RuntimeError: Called inside ``torch.inference_mode()``, which cannot be undone locally.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            'restoration differentiates the energy, which torch.inference_mode() forbids: call it inside '
            'torch.no_grad() instead'
        )
    # Fused attention has no second derivative. The math backend has; it decomposes into ordinary operators here, so
    # that the later backward pass need not be inside this context. First-order restoration keeps the fused kernels.
    attention = sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext()
    with torch.enable_grad(), attention:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        energy = energy_fn(x)
        if energy.shape != x.shape[:1]:
            raise ValueError(
                f'energy_fn must return one number an image, shape ({x.shape[0]},), not {tuple(energy.shape)}'
            )
        # Autocast is the caller's for the forward pass; each operator's backward follows its forward's precision.
        with torch.autocast(x.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=create_graph)
    return energy if create_graph else energy.detach(), gradient


def restore(
    energy_fn: EnergyFn, x: Tensor, step_size: float | Tensor, num_steps: int, *, create_graph: bool
) -> Restoration:
    """Restore corrupted images by ``num_steps`` steps of gradient descent on their energy.

    The image is detached between steps: each step is a one-step problem of its own, and a loss over all of them never
    differentiates more than twice.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,).
        x: Corrupted images x_0 (N, C, H, W), normalised as the network expects them.
        step_size: a > 0, a number or a tensor of one element.
        num_steps: K >= 1.
        create_graph: Whether the restored images can be differentiated with respect to the network's weights.

    Raises:
        ValueError: ``num_steps`` is less than 1, or the energy is not of shape (N,).
    """
    if num_steps < 1:
        raise ValueError(f'num_steps must be at least 1, not {num_steps}')
    images, energies = [x], []
    for _ in range(num_steps):
        start = images[-1].detach()
        energy, gradient = energy_gradient(energy_fn, start, create_graph=create_graph)
        images.append(start - step_size * gradient)
        energies.append(energy)
    return Restoration(images, energies)
