"""Energy-based pretraining: restore corrupted images by gradient descent on an energy."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.energy import EnergyFn, Restoration, restoration_step, restore
from mmebm.models.losses.noise_contrastive import image_nce, token_accuracy, token_nce
from mmebm.models.selfsup.base import BaseRestorer, fill, freeze
from mmebm.models.selfsup.checks import (
    check_engine,
    check_losses_of_energies,
    check_low_memory,
    check_reached,
    check_restored_share,
    check_twice_differentiable,
    has_token_energies,
)
from mmebm.models.selfsup.content_dropping import ContentDropping
from mmebm.models.selfsup.generator_corruption import GeneratorCorruption, build_corruption
from mmebm.models.selfsup.missing_values import MissingValues, energies_of
from mmebm.models.selfsup.patch_choice import PatchChoice, placed
from mmebm.models.selfsup.position_dropping import PositionDropping
from mmebm.models.selfsup.step_size import calibrated_log_step_size
from mmebm.models.selfsup.token_dropping import TokenDropping
from mmebm.models.selfsup.training_pair import TrainingPair, as_pair
from mmebm.models.token_energies import of_images, token_map
from mmebm.option_check import check_not_negative, check_whole_numbers
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
        token_nce_weight: Weight of a loss like that of ``nce_weight``, token by token: a token's energy is the logit of
            its patch being corrupted (``mmebm.models.losses.noise_contrastive.token_nce``). Its classes are the patches
            that a corruption changed and those that it left, so it costs nothing, and excludes ``low_memory``. For
            heads with an energy for each token, ``over='tokens'``. With corruptions of all pixels, let a part of the
            images stay as they are.
        position_dropping: Read some patches without their position, and restore it, for mmpretrain's ViTs:
            ``dict(ratio=0.25, weight=0.3)`` drops the positions of a quarter of an image's patches, uncorrupted ones if
            there are any; options of ``mmebm.models.selfsup.position_dropping.PositionDropping``. Training only.
        content_dropping: Restore the contents of some patches that were not read, for mmpretrain's ViTs and with
            ``token_dropping``: ``dict(ratio=0.25, weight=1.0)`` lets a quarter of the patches be read off the others;
            options of ``mmebm.models.selfsup.content_dropping.ContentDropping``. Training only.
        restored_share: Share of a batch's images that are restored. The others train what needs no restoration,
            at the cost of a supervised step: with ``nce_weight`` or ``token_nce_weight`` the energy as a logit, with
            ``position_dropping`` and ``content_dropping`` Q by its features alone. They are those that a corruption
            left as they are, if there are any. The restoration loss is the mean of those that are restored. Below 1 not
            with several steps, ``micro_batch``, ``low_memory`` or batch normalisation.
        corruption: Corrupts clean images on the device, in place of ``CorruptedPair``: config of a
            ``GeneratorCorruption``, which also tells which patches it has changed. It is no part of the checkpoint.
            Training only, and ``predict`` for a list of one view.
        frozen: Names of parameters that the gradient of the energy does not depend on; frozen, so that distributed
            training does not wait for their gradients. With a linear energy these are biases that only shift the last
            features, such as ``backbone.ln1.bias``.
        training_step: How a step is computed, with the same gradients: options of ``mmebm.training_step.TrainingStep``,
            such as ``dict(compile=True, micro_batch=64)``.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: ``num_steps`` or ``step_size`` is not positive, a weight is negative, ``frozen`` names an unknown
            parameter, or the backbone has a layer that cannot be differentiated twice.
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
        token_nce_weight: float = 0.0,
        position_dropping: dict | None = None,
        content_dropping: dict | None = None,
        restored_share: float = 1.0,
        corruption: dict | GeneratorCorruption | None = None,
        frozen: Sequence[str] = (),
        training_step: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_whole_numbers('EBMAlgorithm', num_steps=num_steps)
        if step_size != 'auto' and not (isinstance(step_size, (int, float)) and 0 < step_size < math.inf):
            raise ValueError(f"EBMAlgorithm: step_size must be a positive number or 'auto', not {step_size!r}")
        check_not_negative('EBMAlgorithm', nce_weight=nce_weight, token_nce_weight=token_nce_weight)
        self.corruption = build_corruption(corruption)
        if self.corruption:
            self.num_inputs = 1
        self.num_steps = num_steps
        self.log_step_size = nn.Parameter(
            torch.tensor([1.0 if step_size == 'auto' else step_size]).log(), requires_grad=learn_step_size
        )
        self.register_buffer('step_size_is_set', torch.tensor(step_size != 'auto'))
        check_twice_differentiable(self)
        self.token_dropping = TokenDropping(self.backbone, **token_dropping) if token_dropping else None
        self.position_dropping = PositionDropping(self.backbone, **position_dropping) if position_dropping else None
        self.content_dropping = ContentDropping(self.backbone, **content_dropping) if content_dropping else None
        self.patch_choice = PatchChoice(self.token_dropping, self.position_dropping, self.content_dropping)
        self.droppings = self.patch_choice.droppings
        self.missing = MissingValues([part.shape for part in self.droppings])
        freeze(self, frozen)
        self.nce_weight = nce_weight
        self.token_nce_weight = token_nce_weight
        self.restored_share = restored_share
        check_losses_of_energies(self)
        check_restored_share(self, training_step or {})
        self.training_step = TrainingStep(self, self._step, num_steps, **(training_step or {}))
        check_low_memory(self)

    def init_weights(self) -> None:
        """Initialise the weights, and read those of the corruption."""
        super().init_weights()
        if self.corruption:
            self.corruption.load(self)

    @property
    def step_size(self) -> Tensor:
        """The step size a > 0, shape (1,)."""
        return self.log_step_size.exp()

    def energy(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Energies (N,) of normalised images (N, C, H, W), or of their patches ``kept`` (N, M)."""
        return self.head(self._features(images, kept), images, kept)

    def energy_parts(self, images: Tensor) -> Tensor:
        """Energies (N, M) of the tokens of normalised images, whose sum is ``energy``, or (N,) if the head has none."""
        if not has_token_energies(self.head):
            return self.energy(images)
        return self.head(self._features(images), images, in_parts=True)

    def _features(self, images: Tensor, kept: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        with nullcontext() if kept is None else self.token_dropping.keeping(kept, images):
            feats = self.backbone(images)
        return self.neck(feats) if self.with_neck else feats

    def restore(self, corrupted: Tensor) -> Restoration:
        """Restore normalised images (N, C, H, W), of which there may be one; see ``mmebm.energy.restore``."""
        return self._restore(self.energy, corrupted)

    def _restore(self, energy_fn: EnergyFn, corrupted: Tensor) -> Restoration:
        if corrupted.dim() != 4:
            raise ValueError(
                f'EBMAlgorithm restores images (N, C, H, W), not {tuple(corrupted.shape)}: one is image[None]'
            )
        return restore(energy_fn, corrupted, self.step_size.detach(), self.num_steps)

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Losses and statistics, scalars, for ``[corrupted, clean]``, each (N, C, H, W) and normalised.

        With ``corruption``, for clean images (N, C, H, W), or a list of that one batch. The loss of restoration is
        ``loss``, or, where there are others, ``loss_restoration``.
        """
        pair = self.patch_choice(*(self.corruption(inputs, self) if self.corruption else as_pair(inputs)))
        if self._is_first_batch:
            self._on_first_batch(pair)
        to_restore, others = self._split(pair)
        losses, restored = self.training_step(self.missing.start(to_restore.corrupted), to_restore)
        if others is not None:
            share = len(others.clean) / len(pair.clean)
            for name, value in self._losses_without_restoration(others).items():
                losses[name] = (1 - share) * losses[name] + share * value
        if self._is_first_batch:
            check_reached(self, losses)
            self._is_first_batch = False
        names = {name for name in losses if 'loss' in name}
        if 'loss' in names and len(names) > 1 and 'loss_restoration' not in names:
            losses['loss_restoration'] = losses.pop('loss')  # mmengine logs the sum as `loss`
        return losses | self._statistics(to_restore, self.missing.unpack(restored, to_restore.clean.shape)[0])

    def _split(self, pair: TrainingPair) -> tuple[TrainingPair, TrainingPair | None]:
        """The images that are restored, and the others."""
        number = max(1, round(self.restored_share * len(pair.clean)))
        if number >= len(pair.clean):
            return pair, None
        unchanged = ~pair.changed_pixels().flatten(1).any(dim=1)
        order = unchanged.to(torch.uint8).argsort(stable=True)  # corrupted images first
        return pair.take(order[:number]), pair.take(order[number:])

    def _losses_without_restoration(self, pair: TrainingPair) -> dict[str, Tensor]:
        """Losses of energies at the start alone; missing values, which start at zero, are then what is predicted."""
        energies, predicted = self._read(self.missing.start(pair.corrupted), pair)
        return self._losses_of_energies(energies, predicted, pair)

    def _step(self, x: Tensor, pair: TrainingPair) -> tuple[Tensor, dict[str, Tensor]]:
        """x_k = x - a dE/dx and its losses, of x = x_{k-1}: images (N, C, H, W), or these with missing values."""
        energy_fn, gradient_fn = self._energy_fn(pair), self.training_step.gradient_fn
        sizes = self.missing.step_sizes(x, self.step_size)
        restored, energies = restoration_step(energy_fn, x, sizes, create_graph=True, gradient_fn=gradient_fn)
        images, values = self.missing.unpack(restored, pair.clean.shape)
        if values:
            energies = energies[:, : -self.missing.number]
        losses = self.head.loss(images, pair.clean, pair.corrupted, pair.where)
        return restored, losses | self._losses_of_energies(energies, values, pair)

    def _losses_of_energies(self, energies: Tensor, values: list[Tensor], pair: TrainingPair) -> dict[str, Tensor]:
        """Losses of energies (N,) or (N, M) of tokens, and of restored missing values."""
        losses = {}
        for dropping, restored in zip(self.droppings, values, strict=True):
            losses |= dropping.losses(restored, pair)
        if self.nce_weight:
            # As the corrupted images are read, or the classes could be told by what is missing.
            clean, _ = self._read(self.missing.start(pair.clean), pair)
            losses['loss_nce'] = self.nce_weight * image_nce(*map(of_images, (clean, energies)))
        if self.token_nce_weight:
            changed = self.patch_choice.changed(pair, energies.shape[1])
            of_patches, counts = energies[:, -changed.shape[1] :], placed(pair, changed)
            losses['loss_token_nce'] = self.token_nce_weight * token_nce(of_patches, changed, counts)
            losses['token_accuracy'] = token_accuracy(of_patches, changed, counts)
        return losses

    def _energy_fn(self, pair: TrainingPair) -> EnergyFn:
        return partial(self._energy_in_parts, pair=pair)

    def _energy_in_parts(self, x: Tensor, pair: TrainingPair) -> Tensor:
        """Energies (N,) or (N, M) of tokens, and behind these of missing values."""
        energies, predicted = self._read(x, pair)
        if not predicted:
            return energies
        values = self.missing.unpack(x, pair.clean.shape)[1]
        return torch.cat([energies, *energies_of(values, predicted)], dim=1)

    def _read(self, x: Tensor, pair: TrainingPair) -> tuple[Tensor, list[Tensor]]:
        """Energies (N,) or (N, M) of tokens, and what is predicted for missing values, (N, R, D) of each kind."""
        if not (self.token_nce_weight or self.droppings):
            return self.energy(x, pair.kept), []
        images, values = self.missing.unpack(x, pair.clean.shape)
        dropping = self.position_dropping
        with dropping.placing(pair.dropped, values[0], pair.kept) if dropping else nullcontext():
            feats = self._features(images, pair.kept)
        energies = self.head(feats, images, pair.kept, in_parts=True)
        last, predicted = feats[-1] if isinstance(feats, (list, tuple)) else feats, []
        if dropping:
            predicted.append(dropping.logits(last, pair.dropped, pair.kept))
        if self.content_dropping:
            predicted.append(self.content_dropping.read(values[-1], pair.missing, last))
        return energies, predicted

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
        if pair.replaced is not None:
            ratios['replaced_share'] = pair.replaced.float().mean()
        return dict(**ratios, step_size=self.step_size)

    def _on_first_batch(self, pair: TrainingPair) -> None:
        check_engine(self)
        check_twice_differentiable(self)  # again: by now the runner has converted layers
        self.training_step.check(type(self)._energy_fn, self.missing.start(pair.corrupted), pair)
        if not self.step_size_is_set:
            self._calibrate(pair)

    @torch.no_grad()
    def _calibrate(self, pair: TrainingPair) -> None:
        parts = (part for part, _ in self.training_step.parts(pair))
        gradients = (self._image_gradient(part) for part in parts)
        self.log_step_size.copy_(calibrated_log_step_size(pair.squared_error(pair.corrupted), gradients))
        self.step_size_is_set.fill_(True)

    def _image_gradient(self, pair: TrainingPair) -> Tensor:
        start, gradient_fn = self.missing.start(pair.corrupted), self.training_step.gradient_fn
        _, gradient = gradient_fn(self._energy_fn(pair), start, create_graph=False)
        return self.missing.unpack(gradient, pair.clean.shape)[0]

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Features of the backbone's stages, of images (N, C, H, W) or of the clean ones in a pair."""
        if isinstance(inputs, (list, tuple)):
            inputs = inputs[0] if self._is_to_be_corrupted(inputs) else as_pair(inputs)[1]
        return self.backbone(inputs)

    def corrupted_alike(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor | list[Tensor], Tensor | None]:
        """``inputs`` of ``predict``, corrupted if they are to be, by the same random numbers for every batch.

        Returns:
            The images or ``[corrupted, clean]``, and which pixels (N, H, W) are of replaced tokens; None if none are.
        """
        if not self._is_to_be_corrupted(inputs):
            return inputs, None
        rng = torch.Generator(inputs[0].device).manual_seed(0)  # as CIM does
        *pair, replaced = self.corruption(inputs, self, rng)
        return pair, replaced

    def _is_to_be_corrupted(self, inputs: Tensor | Sequence[Tensor]) -> bool:
        return bool(self.corruption) and isinstance(inputs, (list, tuple)) and len(inputs) == 1

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Restore images and compute their energies.

        Args:
            inputs: Images to restore, or ``[corrupted, clean]``, or, with ``corruption``, ``[clean]``, which is then
                corrupted by the same random numbers for every batch; normalised, (N, C, H, W).
            data_samples: N samples to fill, or none.

        Returns:
            N data samples with ``energies`` (K + 1,), those of x_0 to x_K, and ``restored`` (C, H, W); for a pair also
            ``corrupted`` and ``clean`` (C, H, W) and ``clean_energy``. Images are in pixel units, 0 to 255. If the head
            has an energy for each token, and these are a grid of square patches, also ``token_energies`` (h, w) of x_0.
            Of images that are corrupted here, also ``replaced_pixels`` (H, W), True = of a replaced token.
        """
        inputs, replaced = self.corrupted_alike(inputs)
        is_pair = isinstance(inputs, (list, tuple))
        corrupted, clean = as_pair(inputs) if is_pair else (inputs, None)
        restoration = self._restore(self.energy_parts, corrupted)
        restored = restoration.images[-1]
        energies = [*map(of_images, restoration.energies)]
        fields = dict(
            energies=torch.stack([*energies, self.energy(restored)], dim=1), restored=self.to_pixels(restored)
        )
        if is_pair:
            fields |= dict(
                corrupted=self.to_pixels(corrupted), clean=self.to_pixels(clean), clean_energy=self.energy(clean)
            )
        if replaced is not None:
            fields['replaced_pixels'] = replaced
        of_tokens = token_map(restoration.energies[0], corrupted.shape[-2:])
        if of_tokens is not None:
            fields['token_energies'] = of_tokens
        return fill(data_samples, fields)


def _ratio(remaining: Tensor, initial: Tensor) -> Tensor:
    return torch.where(initial > 0, remaining / initial.clamp(min=1e-12), 1.0)  # 1: there was nothing to restore
