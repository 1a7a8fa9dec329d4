"""Energy-based pretraining: restore corrupted images by descending the energy that a backbone gives them."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial as bind
from typing import Literal

import torch
from mmengine.dist import all_reduce
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.energy import Restoration, restore
from mmebm.launch.checks.engines import check_model
from mmebm.models.heads.energy_head import energy_by
from mmebm.models.selfsup.base import BaseRestorer, fill
from mmebm.models.selfsup.token_dropping import TokenDropping
from mmebm.registry import MODELS
from mmebm.training_step.step import TrainingPair, TrainingStep

# How far the first step of step_size='auto' goes, of the way that the corruption went. Small, so that training starts
# near the identity and not by unlearning noise.
AUTO_REACH = 0.1


@MODELS.register_module()
class EBMAlgorithm(BaseRestorer):
    """Pretrains any backbone by energy-inspired restoration (arXiv 2302.01384).

    The forward pass of backbone, neck and head is an image's energy; K steps down the gradient of that energy restore
    a corrupted image; the loss compares each step's image with the clean one.

    Inputs are ``[corrupted, clean]``, two views as ``mmebm.CorruptedPair`` makes them. The trained network lies under
    ``backbone.`` in the checkpoint.

    Args:
        backbone: Config of a backbone: mmpretrain's, ``mmpretrain.TIMMBackbone``, ``mmebm.HuggingFaceBackbone``, or
            another package's.
        head: Config of an ``EnergyHead`` or a ``ResidualEnergyHead``.
        neck: Config of a neck between the two.
        num_steps: K, restoration steps.
        step_size: a > 0, in normalised pixels; or ``auto``: on the first training batch, a is set such that one step
            moves the images a tenth as far as the corruption did (in root mean square), and it is kept in the
            checkpoint.
        learn_step_size: Whether a is trained. Its logarithm is the parameter, so that it stays positive.
        compile: Whether to compile a training step, inner gradient included, as one graph. The first step then takes a
            minute or more; where compiling fails, training warns and goes on without it. (Not the runner's own
            ``compile``, which would differentiate a compiled module twice.)
        low_memory: Whether to recompute activations block by block in place of keeping them: at larger batches, less
            memory than a supervised step; 1.7 times as slow.
        attention: ``explicit``; or ``recomputed``, which saves no L x L matrix, for long sequences (not with
            ``compile`` or ``low_memory``, which need none).
        micro_batch: How many images' activations exist at a time; a batch is differentiated in such parts. None: all.
        partial: Restore a random part of each image and drop the other tokens before the first block, for ViTs:
            ``dict(patch_size=16, visible=0.25, corrupted=0.25)`` keeps a quarter of the sequence from the uncorrupted
            patches and a quarter from the corrupted ones. The loss counts the kept patches. Training only.
        contrast: Weight of a second loss, by which the energy is the logit of an image being corrupted: the mean of
            log(1 + exp(E)) over clean images and of log(1 + exp(-E)) over those that a step starts from
            (noise-contrastive estimation, Gutmann and Hyvärinen, AISTATS 2010). Restoration shapes differences of
            energy near an image; this makes energies comparable between images. It costs a pass over the clean images,
            and excludes ``low_memory``.
        frozen: Names of parameters that cannot train, because the gradient of the energy does not depend on them;
            they are frozen so that distributed training does not wait for their gradients. With a linear energy these
            are biases that only shift the last features, such as ``backbone.ln1.bias``.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: ``num_steps`` or ``step_size`` is not positive, ``frozen`` names an unknown parameter, or the
            backbone has a layer that cannot be differentiated twice.
    """

    num_inputs = 2  # corrupted and clean

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        num_steps: int = 1,
        step_size: float | Literal['auto'] = 'auto',
        learn_step_size: bool = True,
        compile: bool = False,
        low_memory: bool = False,
        attention: Literal['explicit', 'recomputed'] = 'explicit',
        micro_batch: int | None = None,
        partial: dict | None = None,
        contrast: float = 0.0,
        frozen: Sequence[str] = (),
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if num_steps < 1:
            raise ValueError(f'EBMAlgorithm: num_steps must be at least 1, not {num_steps}')
        if step_size != 'auto' and not (isinstance(step_size, (int, float)) and step_size > 0):
            raise ValueError(f"EBMAlgorithm: step_size must be a positive number or 'auto', not {step_size!r}")
        self.num_steps = num_steps
        self.log_step_size = nn.Parameter(
            torch.tensor([1.0 if step_size == 'auto' else step_size]).log(), requires_grad=learn_step_size
        )
        self.register_buffer('step_size_is_set', torch.tensor(step_size != 'auto'))
        check_twice_differentiable(self)
        freeze(self, frozen)
        self.token_dropping = TokenDropping(self.backbone, **partial) if partial else None
        self.training_step = TrainingStep(self, compile, low_memory, attention, micro_batch, contrast)

    @property
    def step_size(self) -> Tensor:
        """The step size a > 0, shape (1,)."""
        return self.log_step_size.exp()

    def energy(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Energies (N,) of normalised images (N, C, H, W), or of their patches ``kept`` (N, M), see ``partial``."""
        with nullcontext() if kept is None else self.token_dropping.keeping(kept, images):
            feats = self.backbone(images)
        if self.with_neck:
            feats = self.neck(feats)
        return energy_by(self.head, feats, images, kept)

    def restore(self, corrupted: Tensor, *, create_graph: bool = False) -> Restoration:
        """Restore normalised images (N, C, H, W); see ``mmebm.energy.restore``."""
        step_size = self.step_size if create_graph else self.step_size.detach()
        return restore(self.energy, corrupted, step_size, self.num_steps, create_graph=create_graph)

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Restoration loss and its statistics for ``[corrupted, clean]``, each (N, C, H, W) and normalised."""
        pair = self._training_pair(*as_pair(inputs))
        if self._is_first_batch:
            self._on_first_batch(pair)
        losses, restored = self.training_step(pair)
        return losses | self._statistics(pair, restored)

    def _training_pair(self, corrupted: Tensor, clean: Tensor) -> TrainingPair:
        if self.token_dropping is None:
            return TrainingPair(corrupted, clean, kept=None, where=None)
        kept = self.token_dropping.choose(corrupted, clean)
        return TrainingPair(corrupted, clean, kept, where=self.token_dropping.pixels(kept, clean))

    @torch.no_grad()
    def _statistics(self, pair: TrainingPair, restored: Tensor) -> dict[str, Tensor]:
        """What a step knows for nothing; mmengine logs it, since no name contains ``loss``."""
        return dict(
            error_ratio=pair.squared_error(restored) / pair.squared_error(pair.corrupted).clamp(min=1e-12),
            step_size=self.step_size,
        )

    def _on_first_batch(self, pair: TrainingPair) -> None:
        check_model(self)
        check_twice_differentiable(self)  # again: by now the runner has converted what it converts
        self.training_step.check(pair)
        if not self.step_size_is_set:
            self._set_step_size(pair)
        self._is_first_batch = False

    @torch.no_grad()
    def _set_step_size(self, pair: TrainingPair) -> None:
        """``step_size='auto'``: a = rms(x_0 - clean) / rms(dE/dx) / 10, over all processes.

        With ``micro_batch`` and ``low_memory``, the gradients take no more memory than those of a training step.
        """
        step, squared_gradient = self.training_step, 0.0
        for part in pair.split(step.micro_batch or len(pair.clean)):
            energy_fn = bind(self.energy, kept=part.kept)
            # Low memory recomputes where a graph is asked for, of which nothing is left here, without gradients.
            _, gradient = step.gradient_fn(energy_fn, part.corrupted, create_graph=step.low_memory)
            squared_gradient = squared_gradient + gradient.float().square().sum()
        squares = torch.stack([pair.squared_error(pair.corrupted), squared_gradient])
        all_reduce(squares)
        if not (squares > 0).all():
            raise ValueError(
                "step_size='auto' needs a first batch in which the images are corrupted and the energy has a "
                f'gradient; sums of squares: {squares.tolist()}'
            )
        self.log_step_size.copy_((squares[0] / squares[1]).log() / 2 + math.log(AUTO_REACH))
        self.step_size_is_set.fill_(True)

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Features of the backbone's stages, of images or of the clean ones in a pair."""
        images = as_pair(inputs)[1] if isinstance(inputs, (list, tuple)) else inputs
        return self.backbone(images)

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Restore images and score them.

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


def as_pair(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Check that inputs are ``[corrupted, clean]``.

    Raises:
        ValueError: They are not two batches of images of the same shape.
    """
    if not (isinstance(inputs, (list, tuple)) and len(inputs) == 2 and inputs[0].shape == inputs[1].shape):
        raise ValueError(
            'EBMAlgorithm needs inputs [corrupted, clean] of the same shape: put '
            "dict(type='mmebm.CorruptedPair', corruption=...) before PackInputs in the pipeline"
        )
    return inputs[0], inputs[1]


def check_twice_differentiable(model: nn.Module) -> None:
    """Refuse layers whose double backward is missing.

    Raises:
        ValueError: Names the layer, why, and what to do.
    """
    for name, module in model.named_modules():
        if type(module).__name__ == 'SyncBatchNorm':  # torch's, and mmcv's of the same name
            raise ValueError(f'{name}: SyncBN has no double backward; use BN, GN or LN in its place')
        if getattr(module, 'with_cp', False):
            raise ValueError(f'{name}: with_cp=True checkpoints re-entrantly, which has no double backward; unset it')


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Set ``requires_grad=False`` on the named parameters.

    Raises:
        ValueError: A name is not a parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        if name not in parameters:
            raise ValueError(f'EBMAlgorithm: frozen names {name!r}, which is not one of the parameters {[*parameters]}')
        parameters[name].requires_grad_(False)
