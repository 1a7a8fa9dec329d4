"""The generator of a trained ``CIM`` as a corruption of whole batches, on their device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from mmebm.checkpoint import check_hash
from mmebm.models.selfsup.base import BaseRestorer
from mmebm.models.selfsup.cim import CIM, Target, check_target
from mmebm.registry import MODELS

# Of the generator that may differ from those of its training.
OPTIONS = ('mask_ratio', 'temperature', 'choice')


@MODELS.register_module()
class GeneratorCorruption:
    """Replaces tokens of clean images by those of a trained generator: ``EBMAlgorithm(corruption=...)``.

    ``tools/make_corrupted.py`` writes such images once; this makes others in every epoch. Pixels are whole numbers, as
    in the files. Generator and tokenizer stay as they are: in evaluation mode, without gradients, in float32. They are
    read when training begins, are no part of the trained model nor of its checkpoints, and are not needed to use it.

    Args:
        checkpoint: Of a training of ``CIM``.
        config: Path or name of its config, if the checkpoint does not hold it.
        target: What is restored: the ``clean`` images, or what the tokenizer has ``decoded`` of their own tokens, so
            that a pair differs in the replaced tokens alone.
        sha256: Of the checkpoint's file, in hexadecimal; None: any.
        painting: As in ``CIM``; None: as it was trained.
        **generator: ``mask_ratio``, ``temperature`` and ``choice`` of ``TokenGenerator``; those not given are as it was
            trained.

    Raises:
        TypeError: There is another option.
        ValueError: ``target`` is unknown.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        config: str | None = None,
        target: Target = 'clean',
        sha256: str | None = None,
        painting: str | None = None,
        **generator: Any,
    ) -> None:
        others = generator.keys() - set(OPTIONS)
        if others:
            raise TypeError(f'GeneratorCorruption has no option {sorted(others)[0]!r}')
        check_target('GeneratorCorruption', target, 'decoded' if painting is None else painting)
        self.checkpoint, self.config, self.sha256 = str(checkpoint), config, sha256
        self.target: Target = target
        self.painting, self.options = painting, generator
        self.cim: CIM | None = None

    def __deepcopy__(self, memo: dict) -> 'GeneratorCorruption':
        """Itself: what never changes is shared by copies of a model."""
        return self

    def load(self, model: BaseRestorer) -> CIM:
        """Generator and tokenizer, read when they are first asked for.

        Args:
            model: That they are for.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            ValueError: It has another hash, is of another model, does not hold its config, or reads images that
                ``model`` does not; or an option does not fit it.
        """
        if self.cim is None:
            with torch.random.fork_rng(devices=[]):  # building draws weights
                self.cim = self._read(model)
        return self.cim

    @torch.no_grad()
    def __call__(
        self, inputs: Tensor | Sequence[Tensor], model: BaseRestorer, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corrupted and target images (N, C, H, W), normalised, and a mask (N, H, W) of the replaced tokens' pixels.

        Args:
            inputs: Images (N, C, H, W) as ``model`` normalises them, or a list of that one batch.
            model: By whose data preprocessor they were normalised.
            rng: For masks and draws; None: one of its own that torch's default generator seeds.

        Raises:
            ValueError: The images are already pairs, or are not those that the generator reads; or, in the first batch,
                the tokenizer does not decode them.
        """
        cim = self.load(model)
        images = self._images(inputs, cim)
        cim.to(images.device)
        if rng is None:
            rng = torch.Generator(images.device).manual_seed(int(torch.randint(2**63 - 1, ())))
        with torch.autocast(images.device.type, enabled=False):
            pixels = model.to_pixels(images.float())
            if model._is_first_batch:
                cim.tokenizer.check(pixels)
            view = cim.pair(cim.from_pixels(pixels), self.target, rng)
            corrupted = model.from_pixels(view.corrupted.round())
            target = images if self.target == 'clean' else model.from_pixels(view.clean.round())
        return corrupted, target, cim.pixels_of(view.replaced)[:, 0]

    def _read(self, model: BaseRestorer) -> CIM:
        from mmebm.apis.loading import load_model  # it imports this room

        path = self.checkpoint
        try:
            found = check_hash(path, self.sha256)
            cim = load_model(self.config or path, path if self.config else None).model
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(
                f'GeneratorCorruption: {error}. Set model.corruption.checkpoint to that of a training of CIM, such as '
                '`make cim` or `python tools/train.py configs/cim-revdet_vit-t_shapes.py`'
            ) from error
        if not isinstance(cim, CIM):
            raise ValueError(
                f'GeneratorCorruption: {path} is of {type(cim).__name__}, which has no generator; set '
                'model.corruption.checkpoint to that of a training of CIM'
            )
        swaps = [getattr(part.data_preprocessor, '_channel_conversion', False) for part in (cim, model)]
        if swaps[0] != swaps[1]:
            raise ValueError(
                f'GeneratorCorruption: {path} was trained with data_preprocessor.to_rgb={swaps[0]}, and this model has '
                f'{swaps[1]}: the generator would read the channels in another order; train both alike'
            )
        del cim.backbone, cim.head  # only generator and tokenizer are needed
        cim.painting = self.painting or cim.painting
        cim.generator.configure(**{name: getattr(cim.generator, name) for name in OPTIONS} | self.options)
        check_target('GeneratorCorruption', self.target, cim.painting)
        MMLogger.get_current_instance().info(f'GeneratorCorruption: tokens by {path} (SHA-256 {found})')
        return cim.requires_grad_(False).eval()

    def _images(self, inputs: Tensor | Sequence[Tensor], cim: CIM) -> Tensor:
        views = [inputs] if isinstance(inputs, Tensor) else inputs
        if len(views) != 1:
            raise ValueError(
                f'GeneratorCorruption: the pipeline gives {len(views)} views, where this reads clean images and '
                'corrupts them itself: leave mmebm.CorruptedPair out of the training pipeline, or model.corruption out '
                'of the config'
            )
        convolution = cim.generator.backbone.patch_embed.projection
        expected, found = (convolution.in_channels, *cim.image_size), tuple(views[0].shape[1:])
        if found != expected:
            sizes = ['{} x {} pixels and {} channels'.format(*size[1:], size[0]) for size in (expected, found)]
            raise ValueError(
                f'GeneratorCorruption: the generator of {self.checkpoint} reads images of {sizes[0]}, not of '
                f'{sizes[1]}: crop or resize them to that in the pipeline, or train a CIM on such images'
            )
        return views[0]


def build_corruption(config: dict | GeneratorCorruption | None) -> GeneratorCorruption | None:
    """A model's corruption from its config.

    Raises:
        TypeError: It is another kind of corruption.
    """
    if config is None or isinstance(config, GeneratorCorruption):
        return config
    kind = config.get('type') if isinstance(config, dict) else config
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(config, dict) and isinstance(found, type) and issubclass(found, GeneratorCorruption)):
        raise TypeError(
            f'EBMAlgorithm: model.corruption must be a GeneratorCorruption, which corrupts batches, not {kind!r}; '
            "corruptions of single images belong into the pipeline: dict(type='mmebm.CorruptedPair', corruption=...)"
        )
    return MODELS.build(config)
