"""Checks, on the first image of a training, that second derivatives are right and reach every parameter.

Several ways to write a backbone give wrong second derivatives and no error: an autograd function whose backward pass
computes with detached tensors, ``torch.no_grad()``, ``.detach()`` or ``.item()`` in a forward pass.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmebm.energy import EnergyFn, energy_gradient
from mmebm.error_text import first_few
from mmebm.training_step.conditions import same_conditions
from mmebm.training_step.culprits import ADVICE, culprits

EnergyOf = Callable[[nn.Module, Any], EnergyFn]
LossFn = Callable[[Tensor, Any], Tensor]

FREEZE = "name them in EBMAlgorithm's `frozen`"

# Of finite differences, in normalised pixels. Short steps cross no bend of a ReLU; long ones are above the rounding
# errors of a network that computes some operators in float32. Derivatives are wrong if two steps agree on others.
STEPS = (1e-8, 1e-6, 1e-3, 1e-2)
# Relative. In float64, right derivatives agree to about 1e-7; wrong ones differ by 0.1 or more.
TOLERANCE = 0.05
# Derivatives below this part of their root mean square over all parameters count as zero.
NEGLIGIBLE = 1e-4
# Standard deviation of what is added to weights and images. Behind a layer of zeros, all derivatives would look right;
# in an image's flat areas, maxima have ties.
PERTURBATION = 0.02


def check_gradients(model: nn.Module, energy_of: EnergyOf, loss_fn: LossFn, x: Tensor, batch: Any) -> None:
    """Compare second derivatives of an energy with finite differences of first ones, for each parameter.

    Warns where that is not possible in float64 or finite differences are too inexact, and of trainable parameters that
    get no gradient. Random states are untouched.

    Args:
        model: A copy of the model that is trained; it is changed.
        energy_of: Maps a model and a batch to its energy function of x.
        loss_fn: Maps x and a batch to the loss, a scalar.
        x: One image, or two for batch normalisation, (N, ...).
        batch: Its batch.

    Raises:
        RuntimeError: The energy cannot be differentiated twice, or wrongly. The message names the parameters, and the
            functions and layers at fault.
    """
    # On a CPU, this takes as long as some ten steps of these images.
    print_log("Checking the model's second derivatives on the first image", logger='current')
    x, conditions = x.detach(), same_conditions(x)
    with conditions():
        _check_energy(model, energy_of(model, batch), x)
    with conditions(), torch.autocast(x.device.type, enabled=False):
        try:
            energies = _Energies(model, energy_of, x, batch)
            energy = energies(energies.x)
        except (RuntimeError, TypeError) as error:
            _warn(model, f'second derivatives are not checked, as it does not compute in float64: {_first_line(error)}')
        else:
            energies.check(energy, loss_fn)


def _check_energy(model: nn.Module, energy_fn: EnergyFn, x: Tensor) -> None:
    """Compute the energy of images that require gradients, as it is."""
    try:
        energy_fn(x.clone().requires_grad_())
    except RuntimeError as error:
        with torch.no_grad():
            energy_fn(x.clone())  # raises what is no matter of gradients
        problem = f'the energy cannot be differentiated ({_first_line(error)})'
        raise RuntimeError(f'{type(model).__name__}: {problem}. {ADVICE}') from error


class _Energies:
    """Energies of a model that may be changed, in float64, and their derivatives."""

    def __init__(self, model: nn.Module, energy_of: EnergyOf, x: Tensor, batch: Any) -> None:
        self.model = model.double()
        self.buffers = [buffer.clone() for buffer in self.model.buffers()]
        x, self.batch = tree_map_only(Tensor, _as_float64, (x.clone(), batch))
        self.energy_of = energy_of
        self.conditions = same_conditions(x)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.generator = torch.Generator(x.device)
        for parameter, noise in zip(self.parameters.values(), self._noise(), strict=True):
            parameter.data.add_(noise, alpha=PERTURBATION)
        self.direction = torch.empty_like(x).normal_(generator=self.generator)
        noise = torch.empty_like(x).normal_(generator=self.generator)
        self.x = x.add_(noise, alpha=PERTURBATION).requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        """Energies (N,), always under the same conditions."""
        with self.conditions():
            for buffer, value in zip(self.model.buffers(), self.buffers, strict=True):
                buffer.data.copy_(value)  # statistics and the like, which a forward pass may read and change
            return self.energy_of(self.model, self.batch)(x)

    def check(self, energy: Tensor, loss_fn: LossFn) -> None:
        """As ``check_gradients``, given the energies of x."""
        try:
            depends_on_x = energy.requires_grad and _gradients(energy.sum(), self.x)[0] is not None
            found, unused = self.second_derivatives(loss_fn) if depends_on_x else (None, [])
        except torch.OutOfMemoryError:
            _warn(self.model, 'second derivatives are not checked, for want of memory')
            return
        except RuntimeError as error:
            problem = f'the energy cannot be differentiated twice ({_first_line(error)})'
            raise RuntimeError(self.report(problem)) from error
        if found is None:
            raise RuntimeError(self.report('the energy does not depend on the images'))
        wrong = self.wrong(found)
        if wrong is None:
            _warn(self.model, 'second derivatives are not checked: finite differences at several steps do not agree')
        elif wrong:
            kind = 'wrong' if found.isfinite().all() else 'not finite or wrong'
            raise RuntimeError(self.report(f'the second derivatives of the energy are {kind} for {first_few(wrong)}'))
        if unused:
            _warn(self.model, f'no gradient for {first_few(unused)}: they are not trained; to say so, {FREEZE}')

    def second_derivatives(self, loss_fn: LossFn) -> tuple[Tensor, list[str]]:
        """Gradients of the energies' slope along a direction of x, projected, (P,); names that get no gradient."""
        _, gradient = energy_gradient(self, self.x, create_graph=True)
        gradients = _gradients((gradient * self.direction).sum(), self.x, *self.parameters.values())[1:]
        found = self._project(gradients)
        without = [name for name, gradient in zip(self.parameters, gradients, strict=True) if gradient is None]
        if not without:
            return found, []
        with self.conditions():
            loss = loss_fn(self.x, self.batch)
        of_loss = _gradients(loss, self.x, *(self.parameters[name] for name in without))[1:]
        return found, [name for name, gradient in zip(without, of_loss, strict=True) if gradient is None]

    def wrong(self, found: Tensor) -> list[str] | None:
        """Names of the parameters whose second derivatives (P,) are wrong; None if that cannot be told."""
        pending, earlier = torch.ones_like(found, dtype=torch.bool), torch.full_like(found, float('nan'))
        for step in STEPS:
            expected = self._finite_differences(step)
            pending &= ~_agree(found, expected, NEGLIGIBLE * expected.square().mean().sqrt())
            if not pending.any():
                return []
            # Where all is noise, single values may agree by chance.
            is_reliable = (expected - earlier).norm() <= TOLERANCE * expected.norm()
            wrong = pending & _agree(earlier, expected) & is_reliable
            if wrong.any():
                return [name for name, is_wrong in zip(self.parameters, wrong.tolist(), strict=True) if is_wrong]
            earlier = expected
        return None

    def report(self, problem: str) -> str:
        """The message of an error; afterwards, parameters require no gradients."""
        return f'{type(self.model).__name__}: {problem}. {culprits(self.model, partial(self, self.x))}'

    def _finite_differences(self, step: float) -> Tensor:
        """Second derivatives (P,) by central differences of first ones."""
        after, before = (
            self._project(_gradients(self(x).sum(), x, *self.parameters.values())[1:])
            for x in ((self.x + sign * step * self.direction).detach().requires_grad_() for sign in (1, -1))
        )
        return (after - before) / (2 * step)

    def _project(self, gradients: Iterable[Tensor | None]) -> Tensor:
        """Each parameter's gradient along a random direction of its own, (P,): whole ones would take memory."""
        slopes = [
            noise.new_zeros(()) if gradient is None else (gradient * noise).sum()
            for gradient, noise in zip(gradients, self._noise(), strict=True)
        ]
        return torch.stack(slopes)

    def _noise(self) -> Iterator[Tensor]:
        """A random direction of each parameter, the same in every call."""
        self.generator.manual_seed(0)
        for parameter in self.parameters.values():
            yield torch.empty_like(parameter, requires_grad=False).normal_(generator=self.generator)


def _gradients(scalar: Tensor, x: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of x, as in training, and of other tensors.

    Asked for those of its weights alone, torch's group normalisation crashes on a CPU (2.11, channels-last images).
    """
    return torch.autograd.grad(scalar, [x, *others], allow_unused=True)


def _agree(found: Tensor, expected: Tensor, slack: Tensor | float = 0.0) -> Tensor:
    """Whether derivatives (P,) are equal up to the tolerance and a slack, (P,); NaN is not."""
    return (found - expected).abs() <= TOLERANCE * torch.maximum(found.abs(), expected.abs()) + slack


def _as_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')


def _warn(model: nn.Module, problem: str) -> None:
    warnings.warn(f'{type(model).__name__}: {problem}', stacklevel=2)
