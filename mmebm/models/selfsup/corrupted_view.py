"""What the enhancer of corrupted image modelling reads, and what it is trained by."""

from typing import NamedTuple

from torch import Tensor


class CorruptedView(NamedTuple):
    """A batch of images, some of whose tokens were replaced.

    Attributes:
        clean: (N, C, H, W) in pixel units.
        corrupted: Likewise, painted from the tokens.
        replaced: (N, h, w), True = another token than the image's own.
    """

    clean: Tensor
    corrupted: Tensor
    replaced: Tensor
