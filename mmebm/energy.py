"""Energy and restoration: the idea of the project, and the only place in it that differentiates.

One network scores an image's energy E(x). A corrupted image x_0 is restored by gradient descent on that energy,

    x_k = x_{k-1} - a * dE/dx(x_{k-1}),        k = 1 .. K,

and training compares every x_k with the clean image, so that its backward pass differentiates through dE/dx
(Wang, Wang, Liu, Qiu: Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384).

Two ways to that second derivative are here. Both are exact:

- ``energy_gradient``: reverse over reverse. The gradient's own graph is kept and differentiated: the least arithmetic.
- ``LowMemoryGradient``: reverse over forward. With v the loss's gradient with respect to dE/dx, the weights' gradient
  is that of the directional derivative v . dE/dx, a forward pass that can be recomputed block by block.

``SumInParts`` splits a loss, so that only one part's graph exists at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from mmebm.ops.attention import AttentionFn, explicit_attention
from mmebm.ops.checkpointing import block_checkpointing, residual_blocks
from mmebm.ops.double_backward import SecondOrderOperators
from mmebm.ops.forward_mode import DualOperators

EnergyFn = Callable[[Tensor], Tensor]

# In float16, the gradients of single pixels and tokens would underflow. Powers of two, so that they round nothing.
FP16_ENERGY_SCALE = 2.0**6
FP16_LOSS_SCALE = 2.0**14

# In bfloat16 the two formulations differ by about 0.01; a wrong derivative makes 0.1 and more.
LOW_MEMORY_TOLERANCE = 0.05


class Restoration(NamedTuple):
    """What ``restore`` went through.

    Attributes:
        images: K + 1 tensors (N, C, H, W): x_0, the corrupted images, to x_K, the restored ones.
        energies: K tensors (N,): E(x_0) to E(x_{K-1}). E(x_K) would cost one more forward pass.
    """

    images: list[Tensor]
    energies: list[Tensor]


def energy_gradient(
    energy_fn: EnergyFn, x: Tensor, *, create_graph: bool, attention: AttentionFn = explicit_attention
) -> tuple[Tensor, Tensor]:
    """Energy of each image, and its gradient with respect to that image.

    The energies are summed, not averaged, before they are differentiated: an image's gradient does not depend on how
    many others share its batch. Works inside ``torch.no_grad()``, as validation loops do.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,).
        x: Images (N, C, H, W), floating point. If it requires grad, its graph is kept.
        create_graph: Whether the results can be differentiated again, with respect to x and the network's weights.
        attention: What computes the network's attention if ``create_graph``; otherwise the fused kernels do.

    Returns:
        Energies (N,) and gradients (N, C, H, W), the latter in the type of x.

    Raises:
        ValueError: The energy is not of shape (N,).
        RuntimeError: Called inside ``torch.inference_mode()``, which cannot be undone locally.
    """
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError(
            'restoration differentiates the energy, which torch.inference_mode() forbids: call it inside '
            'torch.no_grad() instead'
        )
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        with SecondOrderOperators(attention) if create_graph else nullcontext():
            energy = energy_fn(x)
        _check_energy(energy, x)
        scale = FP16_ENERGY_SCALE if _autocasts_to(torch.float16, x) else 1.0
        # Autocast is the caller's for the forward pass; each operator's backward follows its forward's precision.
        with torch.autocast(x.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(energy.sum() * scale, x, create_graph=create_graph)
            gradient = gradient / scale
    return energy if create_graph else energy.detach(), gradient


def restoration_step(
    energy_fn: EnergyFn, x: Tensor, step_size: float | Tensor, *, create_graph: bool, gradient_fn=energy_gradient
) -> tuple[Tensor, Tensor]:
    """One step down the gradient of the energy.

    Args:
        energy_fn: Maps images (N, C, H, W) to energies (N,).
        x: Images (N, C, H, W), normalised as the network expects them.
        step_size: a > 0, a number or a tensor of one element.
        create_graph: Whether the result can be differentiated with respect to the network's weights.
        gradient_fn: How the energy is differentiated: ``energy_gradient`` or another of its signature.

    Returns:
        Images x - a * dE/dx, (N, C, H, W), and energies E(x), (N,).
    """
    energy, gradient = gradient_fn(energy_fn, x, create_graph=create_graph)
    return x.detach() - step_size * gradient, energy


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
        image, energy = restoration_step(energy_fn, images[-1].detach(), step_size, create_graph=create_graph)
        images.append(image)
        energies.append(energy)
    return Restoration(images, energies)


class LowMemoryGradient:
    """``energy_gradient`` for training, in less memory than a supervised step needs, 1.7 times as slow.

    Nothing but the images is kept until the backward pass. That one computes the directional derivative of the energy
    along the incoming gradient, and differentiates it; both passes recompute the network block by block.

    Args:
        model: The network behind the energy; it must not depend on other parameters.

    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, energy_fn: EnergyFn, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """As ``energy_gradient``; only the gradient is differentiable, with respect to the weights."""
        if not create_graph:
            return energy_gradient(energy_fn, x, create_graph=False)
        return _RecomputedGradient.apply(energy_fn, residual_blocks(self.model), x.detach(), *trainable(self.model))

    def check(self, energy_fn: EnergyFn, x: Tensor) -> None:
        """Compare the weights' gradients with those of ``energy_gradient``, along a random direction.

        Forward-mode formulas of some operators are wrong when they are differentiated, and say nothing.

        Args:
            energy_fn: As in ``energy_gradient``.
            x: Images (N, C, H, W); a single one will do.

        Raises:
            RuntimeError: They differ, so that the model cannot be trained in this way.
        """
        # Of a generator of its own: a resumed run, which checks again, must draw what an uninterrupted one does.
        generator = torch.Generator(x.device).manual_seed(0)
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        same_conditions, found = _conditions(x), []
        for gradient_fn in (energy_gradient, self):
            with same_conditions():
                _, gradient = gradient_fn(energy_fn, x, create_graph=True)
            parts = torch.autograd.grad(gradient, trainable(self.model), direction, allow_unused=True)
            found.append(torch.cat([part.flatten() for part in parts if part is not None]))
        expected, computed = found
        error = (computed - expected).norm() / expected.norm() if len(computed) == len(expected) else float('inf')
        if not error < LOW_MEMORY_TOLERANCE:
            raise RuntimeError(
                f'low-memory gradients are wrong for this model (relative error {error:.1e}): it has an operator whose '
                'forward-mode derivative cannot be differentiated; use micro_batch instead of low_memory'
            )


class _RecomputedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, energy_fn, blocks, x, *parameters):
        ctx.energy_fn, ctx.blocks, ctx.x, ctx.parameters = energy_fn, blocks, x, parameters
        ctx.same_conditions = _conditions(x)
        with block_checkpointing(blocks):
            energy, gradient = energy_gradient(energy_fn, x, create_graph=False)
        ctx.mark_non_differentiable(energy)
        return energy, gradient

    @staticmethod
    def backward(ctx, _, direction):
        with (
            torch.enable_grad(),
            block_checkpointing(ctx.blocks),
            ctx.same_conditions(),
            fwAD.dual_level(),
            DualOperators(),
        ):
            energy = ctx.energy_fn(fwAD.make_dual(ctx.x, direction))
            slope = fwAD.unpack_dual(energy).tangent.sum()
        # Outside the level: within it, autograd would also compute the gradients' own tangents.
        gradients = torch.autograd.grad(slope, ctx.parameters, allow_unused=True)
        return None, None, None, *gradients


def _conditions(x: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """A context that has the autocast and the random numbers (of dropout and the like) that hold now."""
    device = x.device.type
    autocast = dict(enabled=torch.is_autocast_enabled(device), dtype=torch.get_autocast_dtype(device))
    cpu_state, (devices, device_states) = torch.get_rng_state(), get_device_states(x)

    @contextmanager
    def same() -> Iterator[None]:
        with torch.random.fork_rng(devices, device_type=device), torch.autocast(device, **autocast):
            torch.set_rng_state(cpu_state)
            set_device_states(devices, device_states, device_type=device)
            yield

    return same


class SumInParts:
    """Sums losses that are computed one by one, with the memory of one.

    Each loss is differentiated before the next is asked for. The sum carries these gradients: its backward pass only
    hands them over, so that whatever follows (distributed training, gradient accumulation, clipping) notices nothing.

    In float16 they are computed at the factor of the last backward pass, which is the scale of the caller's gradient
    scaler: where they overflow, that one lowers its scale, and thereby the next one here.
    """

    def __init__(self) -> None:
        self.fp16_scale: float | Tensor = FP16_LOSS_SCALE  # before the first backward pass

    def __call__(self, losses: Iterable[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The sum, a scalar.

        Args:
            losses: Yields scalars, each computed when it is asked for.
            parameters: What to differentiate with respect to.
        """
        total, gradients = None, [None] * len(parameters)
        scale = self.fp16_scale if _autocasts_to(torch.float16, parameters[0]) else 1.0
        for loss in losses:
            with torch.autocast(loss.device.type, enabled=False):
                parts = list(torch.autograd.grad(loss * scale, parameters, allow_unused=True))
            for i in range(len(parts)):
                part, parts[i] = parts[i], None  # freed one by one
                if part is not None:
                    gradients[i] = part.clone() if gradients[i] is None else gradients[i].add_(part)
            total = loss.detach() if total is None else total + loss.detach()
        return _WithGradients.apply(total, gradients, scale, self, *parameters)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, total, gradients, scale, owner, *parameters):
        ctx.gradients, ctx.scale, ctx.owner = gradients, scale, owner
        return total.clone()

    @staticmethod
    def backward(ctx, factor):
        gradients, ctx.gradients = ctx.gradients, None  # handed over, not kept
        ctx.owner.fp16_scale = factor
        factor = factor / ctx.scale
        return None, None, None, None, *(None if g is None else g.mul_(factor) for g in gradients)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a model that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _check_energy(energy: Tensor, x: Tensor) -> None:
    if energy.shape != x.shape[:1]:
        raise ValueError(f'energy_fn must return one number an image, shape ({x.shape[0]},), not {tuple(energy.shape)}')


def _autocasts_to(dtype: torch.dtype, x: Tensor) -> bool:
    device = x.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == dtype
