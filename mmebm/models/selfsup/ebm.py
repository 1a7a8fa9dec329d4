"""Energy-based pretraining: restore corrupted images by gradient descent on an energy."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.energy import EnergyFn, Restoration, restoration_step, restore
from mmebm.models.selfsup.base import BaseRestorer, fill, freeze
from mmebm.models.selfsup.checks import check_engine, check_reached, check_twice_differentiable
from mmebm.models.selfsup.step_size import calibrated_log_step_size
from mmebm.models.selfsup.token_dropping import TokenDropping
from mmebm.models.selfsup.training_pair import TrainingPair, as_pair
from mmebm.registry import MODELS
from mmebm.training_step import TrainingStep


@MODELS.register_module()
class EBMAlgorithm(BaseRestorer):
    """Pretrains any backbone by energy-inspired restoration (arXiv 2302.01384).

    The forward pass of backbone, neck and head is an image's energy; K steps of gradient descent on it restore a
    corrupted image; the loss compares each step's image with the clean one. Inputs are ``[corrupted, clean]``, the two
    views of ``mmebm.CorruptedPair``. In the checkpoint, the trained network is under ``backbone.``.

    Args:
        backbone: Config of a backbone: mmpretrain's, ``mmpretrain.TIMMBackbone``, ``mmebm.HuggingFaceBackbone``, or
            another package's.
        head: Config of an ``EnergyHead`` or a ``ResidualEnergyHead``.
        neck: Config of a neck between the two.
        num_steps: K, restoration steps.
        step_size: a > 0, in normalised pixels; or ``auto``: on the first training batch, a is set such that one step
            moves the images a tenth as far as the corruption did (root mean square); the checkpoint keeps it.
        learn_step_size: Whether a is trained. Its logarithm is the parameter, so that it stays positive.
        token_dropping: Restore a random part of each image and drop the other tokens before the first block, for ViTs:
            ``dict(patch_size=16, visible=0.25, corrupted=0.25)`` keeps a quarter of the sequence from the uncorrupted
            patches and a quarter from the corrupted ones. The loss is over the kept patches. Training only.
        nce_weight: Weight of a second loss, by which the energy is the logit of an image being corrupted: the mean of
            log(1 + exp(E)) over clean images and of log(1 + exp(-E)) over those that a step starts from
            (noise-contrastive estimation, Gutmann and Hyvärinen, AISTATS 2010). Restoration shapes energy differences
            near an image; NCE makes energies comparable between images. It adds a pass over the clean images and
            excludes ``low_memory``.
        frozen: Names of parameters that the gradient of the energy does not depend on; frozen, so that distributed
            training does not wait for their gradients. With a linear energy these are biases that only shift the last
            features, such as ``backbone.ln1.bias``.
        training_step: How a step is computed, with the same gradients: options of ``mmebm.training_step.TrainingStep``,
            such as ``dict(compile=True, micro_batch=64)``.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: ``num_steps`` or ``step_size`` is not positive, ``nce_weight`` is negative, ``frozen`` names an
            unknown parameter, or the backbone has a layer that cannot be differentiated twice.
    """

    num_inputs = 2  # corrupted and clean
    differentiates_twice = True

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        num_steps: int = 1,
        step_size: float | Literal['auto'] = 'auto',
        learn_step_size: bool = True,
        token_dropping: dict | None = None,
        nce_weight: float = 0.0,
        frozen: Sequence[str] = (),
        training_step: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f'EBMAlgorithm: num_steps must be a whole number, at least 1, not {num_steps!r}')
        if step_size != 'auto' and not (isinstance(step_size, (int, float)) and 0 < step_size < math.inf):
            raise ValueError(f"EBMAlgorithm: step_size must be a positive number or 'auto', not {step_size!r}")
        if not (isinstance(nce_weight, (int, float)) and 0 <= nce_weight < math.inf):
            raise ValueError(f'EBMAlgorithm: nce_weight must be a number of at least 0, not {nce_weight!r}')
        self.num_steps = num_steps
        self.log_step_size = nn.Parameter(
            torch.tensor([1.0 if step_size == 'auto' else step_size]).log(), requires_grad=learn_step_size
        )
        self.register_buffer('step_size_is_set', torch.tensor(step_size != 'auto'))
        check_twice_differentiable(self)
        freeze(self, frozen)
        self.token_dropping = TokenDropping(self.backbone, **token_dropping) if token_dropping else None
        self.nce_weight = nce_weight
        self.training_step = TrainingStep(self, self._step, num_steps, **(training_step or {}))
        if nce_weight and self.training_step.low_memory:
            raise ValueError(
                'EBMAlgorithm: low_memory=True excludes nce_weight, since it differentiates no energy; use micro_batch'
            )

    @property
    def step_size(self) -> Tensor:
        """The step size a > 0, shape (1,)."""
        return self.log_step_size.exp()

    def energy(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Energies (N,) of normalised images (N, C, H, W), or of their patches ``kept`` (N, M)."""
        with nullcontext() if kept is None else self.token_dropping.keeping(kept, images):
            feats = self.backbone(images)
        if self.with_neck:
            feats = self.neck(feats)
        return self.head(feats, images, kept)

    def restore(self, corrupted: Tensor) -> Restoration:
        """Restore normalised images (N, C, H, W), of which there may be one; see ``mmebm.energy.restore``."""
        if corrupted.dim() != 4:
            raise ValueError(
                f'EBMAlgorithm restores images (N, C, H, W), not {tuple(corrupted.shape)}: one is image[None]'
            )
        return restore(self.energy, corrupted, self.step_size.detach(), self.num_steps)

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Losses and statistics, scalars, for ``[corrupted, clean]``, each (N, C, H, W) and normalised."""
        pair = self._training_pair(*as_pair(inputs))
        if self._is_first_batch:
            self._on_first_batch(pair)
        losses, restored = self.training_step(pair.corrupted, pair)
        if self._is_first_batch:
            check_reached(self, losses)
            self._is_first_batch = False
        return losses | self._statistics(pair, restored)

    def _step(self, x: Tensor, pair: TrainingPair) -> tuple[Tensor, dict[str, Tensor]]:
        """x_k = x - a dE/dx, (N, C, H, W), and its losses, of x = x_{k-1}."""
        energy_fn, gradient_fn = self._energy_fn(pair), self.training_step.gradient_fn
        restored, energy = restoration_step(energy_fn, x, self.step_size, create_graph=True, gradient_fn=gradient_fn)
        losses = self.head.loss(restored, pair.clean, pair.corrupted, pair.where)
        if self.nce_weight:
            nce = F.softplus(energy_fn(pair.clean)).mean() + F.softplus(-energy).mean()
            losses['loss_nce'] = self.nce_weight * nce
        return restored, losses

    def _energy_fn(self, pair: TrainingPair) -> EnergyFn:
        return partial(self.energy, kept=pair.kept)

    def _training_pair(self, corrupted: Tensor, clean: Tensor) -> TrainingPair:
        if self.token_dropping is None:
            return TrainingPair(corrupted, clean, kept=None, where=None)
        kept = self.token_dropping.choose(corrupted, clean)
        return TrainingPair(corrupted, clean, kept, where=self.token_dropping.pixels(kept, clean))

    @torch.no_grad()
    def _statistics(self, pair: TrainingPair, restored: Tensor) -> dict[str, Tensor]:
        """Statistics that cost next to nothing; logged, not optimised, since no key contains ``loss``."""
        ratios = dict(error_ratio=_ratio(pair.squared_error(restored), pair.squared_error(pair.corrupted)))
        # Of the last step's image. The error of pixels may rise while patterns within patches are restored.
        remaining, initial = (
            self.head.loss(images, pair.clean, pair.corrupted, pair.where).get('loss')
            for images in (restored, pair.corrupted)
        )
        if remaining is not None:  # a head of another package may name its losses otherwise
            ratios['objective_ratio'] = _ratio(remaining, initial)
        return dict(**ratios, step_size=self.step_size)

    def _on_first_batch(self, pair: TrainingPair) -> None:
        check_engine(self)
        check_twice_differentiable(self)  # again: by now the runner has converted layers
        self.training_step.check(type(self)._energy_fn, pair.corrupted, pair)
        if not self.step_size_is_set:
            self._calibrate(pair)

    @torch.no_grad()
    def _calibrate(self, pair: TrainingPair) -> None:
        gradient_fn = partial(self.training_step.gradient_fn, create_graph=False)
        parts = (part for part, _ in self.training_step.parts(pair))
        gradients = (gradient_fn(self._energy_fn(part), part.corrupted)[1] for part in parts)
        self.log_step_size.copy_(calibrated_log_step_size(pair.squared_error(pair.corrupted), gradients))
        self.step_size_is_set.fill_(True)

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Features of the backbone's stages, of images (N, C, H, W) or of the clean ones in a pair."""
        images = as_pair(inputs)[1] if isinstance(inputs, (list, tuple)) else inputs
        return self.backbone(images)

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Restore images and compute their energies.

        Args:
            inputs: Images to restore, or ``[corrupted, clean]``; normalised, (N, C, H, W).
            data_samples: N samples to fill, or none.

        Returns:
            N data samples with ``energies`` (K + 1,), those of x_0 to x_K, and ``restored`` (C, H, W); for a pair also
            ``corrupted`` and ``clean`` (C, H, W) and ``clean_energy``. Images are in pixel units, 0 to 255.
        """
        is_pair = isinstance(inputs, (list, tuple))
        corrupted, clean = as_pair(inputs) if is_pair else (inputs, None)
        restoration = self.restore(corrupted)
        restored = restoration.images[-1]
        fields = dict(
            energies=torch.stack([*restoration.energies, self.energy(restored)], dim=1),
            restored=self.to_pixels(restored),
        )
        if is_pair:
            fields |= dict(
                corrupted=self.to_pixels(corrupted), clean=self.to_pixels(clean), clean_energy=self.energy(clean)
            )
        return fill(data_samples, fields)


def _ratio(remaining: Tensor, initial: Tensor) -> Tensor:
    return remaining / initial.clamp(min=1e-12)
