"""Trained tokenizers as a part of other models: what they have in common, and how they stay as they are."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmebm.option_check import check_positive
from mmebm.pixels import PEAK
from mmebm.registry import MODELS


class Tokenizer(Protocol):
    """Encodes images as a grid of tokens, and decodes these.

    Attributes:
        vocabulary: Number K of tokens.
        stride: Side d of a token in pixels.
    """

    vocabulary: int
    stride: int

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (N, H / d, W / d), whole numbers below K, of images (N, 3, H, W)."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (N, 3, h d, w d), in the units of those encoded, of tokens (N, h, w)."""


# Error that a trained tokenizer may make of images of almost one colour, in pixel units.
SLACK = 10.0

MEMBERS = ('tokens', 'decode', 'vocabulary', 'stride')


@MODELS.register_module()
class FrozenTokenizer(BaseModule):
    """A trained tokenizer that another model reads and writes in pixel units, 0 to 255.

    It stays as it is: in evaluation mode, without gradients, in float32.

    Args:
        model: Config of a tokenizer, such as ``VQVAE`` with an ``init_cfg`` that loads its checkpoint. It needs
            ``tokens``, ``decode``, ``vocabulary`` and ``stride``, those of ``Tokenizer``.
        mean: Of the tokenizer's own data preprocessor, in pixel units.
        std: Likewise.
        scale: Size at which the tokenizer reads images, relative to that of the images. At 0.5, a tokenizer with a
            token per 8 x 8 pixels has one per 16 x 16 of the images.
        checked: Whether ``check`` refuses an untrained tokenizer; False to time a model without one that is trained.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        TypeError: The model is no tokenizer.
        ValueError: ``std`` or ``scale`` is not positive, ``mean`` and ``std`` are not as long as each other, or a
            token's side is no whole number of pixels.

    Attributes:
        vocabulary: Number K of tokens.
        stride: Side of a token in pixels of the images.
    """

    def __init__(
        self,
        model: dict | nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float = 1.0,
        checked: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.checked = checked
        self.model = model if isinstance(model, nn.Module) else MODELS.build(model)
        missing = [name for name in MEMBERS if not hasattr(self.model, name)]
        if missing:
            raise TypeError(f'FrozenTokenizer: {type(self.model).__name__} is no tokenizer, it lacks {missing}')
        check_positive('FrozenTokenizer', scale=scale)
        if not (_are_numbers(mean) and _are_numbers(std) and len(mean) == len(std) and min(std) > 0):
            raise ValueError(
                f'FrozenTokenizer: mean={mean} and std={std} must be one number for each channel of the images, those '
                "of std positive; they are those of the tokenizer's own data preprocessor"
            )
        self.scale = scale
        self.vocabulary, self.stride = self.model.vocabulary, round(self.model.stride / scale)
        if abs(self.stride * scale - self.model.stride) > 1e-6:
            raise ValueError(
                f'FrozenTokenizer: at scale={scale}, a token of {self.model.stride} pixels is '
                f'{self.model.stride / scale:g} of the images; choose a scale that makes it a whole number'
            )
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> 'FrozenTokenizer':
        """Stay in evaluation mode: the codebook of a tokenizer in training would move even without gradients."""
        return super().train(False)

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """Tokens (N, h, w) of images (N, 3, H, W) in pixel units.

        Raises:
            ValueError: The image is no whole number of tokens high and wide, or of another number of channels.
        """
        channels, height, width = pixels.shape[-3:]
        if len(self.mean) not in (1, channels):
            raise ValueError(
                f'FrozenTokenizer: the images have {channels} channels, but mean and std of the tokenizer are for '
                f'{len(self.mean)}; load images of as many channels (color_type of mmebm.LoadImage)'
            )
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'FrozenTokenizer: images of {height} x {width} pixels are no whole number of tokens of {self.stride} '
                'pixels; resize them, or choose another scale'
            )
        with torch.autocast(pixels.device.type, enabled=False):  # lower precision would swap similar tokens
            size = (round(height * self.scale), round(width * self.scale))
            return self.model.tokens((_resized(pixels.float(), size) - self.mean) / self.std)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Images (N, 3, H, W) in pixel units of tokens (N, h, w)."""
        with torch.autocast(tokens.device.type, enabled=False):
            pixels = self.model.decode(tokens) * self.std + self.mean
            size = (tokens.shape[-2] * self.stride, tokens.shape[-1] * self.stride)
            return _resized(pixels, size).clamp(0, PEAK)

    def check(self, pixels: Tensor) -> None:
        """Check that images (N, 3, H, W) in pixel units are decoded with half the squared error of one colour each.

        Raises:
            ValueError: They are not: the tokenizer is untrained, or reads other units.
        """
        if not self.checked:
            return
        error = (self.decode(self.tokens(pixels)) - pixels).square().mean()
        contrast = (pixels - pixels.mean(dim=(-2, -1), keepdim=True)).square().mean()
        if error > contrast / 2 + SLACK**2:
            raise ValueError(
                f'FrozenTokenizer: decoded images differ from the images by {error.sqrt():.0f} of {PEAK:g} (root mean '
                f'square), those of one colour each by {contrast.sqrt():.0f}. Either {type(self.model).__name__} is '
                "untrained (set its init_cfg=dict(type='Pretrained', checkpoint=FILE)), or it was trained on images in "
                'other units than mean and std make (set them to those of its own data preprocessor)'
            )


def _are_numbers(values: object) -> bool:
    """Whether it is a sequence of at least one number."""
    is_sequence = isinstance(values, (list, tuple)) and len(values) > 0
    return is_sequence and all(isinstance(value, (int, float)) for value in values)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode='bilinear', antialias=True)
