"""Corrupted and clean images, and the pixels that count in the loss."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mmebm.models.patches import marked_patches


class TrainingPair(NamedTuple):
    """A batch, or a part of one.

    Attributes:
        corrupted: (N, C, H, W).
        clean: (N, C, H, W).
        kept: Indices (N, M) of the patches that the network reads; None for all.
        where: Mask (N, H, W) of their pixels, True = counts in the loss; None for all.
        dropped: Indices (N, P) into the patches that the network reads, of those without position; None for none.
        missing: Indices (N, R) of patches that the network does not read and that are restored; None for none.
        changed: Which patches that the network reads are corrupted, (N, M), True = corrupted; None if not known yet.
        replaced: Mask (N, H, W) of pixels, True = corrupted, from a corruption that says it; None: where the images
            differ.
    """

    corrupted: Tensor
    clean: Tensor
    kept: Tensor | None = None
    where: Tensor | None = None
    dropped: Tensor | None = None
    missing: Tensor | None = None
    changed: Tensor | None = None
    replaced: Tensor | None = None

    def take(self, images: Tensor) -> 'TrainingPair':
        """The images at indices (n,)."""
        return TrainingPair(*(None if tensor is None else tensor[images] for tensor in self))

    def changed_pixels(self) -> Tensor:
        """Mask (N, H, W) of pixels, True = corrupted."""
        return (self.corrupted != self.clean).any(dim=1) if self.replaced is None else self.replaced

    def changed_patches(self, grid: tuple[int, int]) -> Tensor:
        """Which patches of the images are corrupted, (N, L), row by row; ``grid`` is rows and columns."""
        return marked_patches(self.changed_pixels(), grid)

    def squared_error(self, images: Tensor) -> Tensor:
        """Sum of squared differences of images (N, C, H, W) from the clean ones, over pixels that count; a scalar."""
        error = (images - self.clean).square().sum(dim=1)
        return error.sum() if self.where is None else (error * self.where).sum()


def as_pair(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Check that inputs are ``[corrupted, clean]``, each (N, C, H, W).

    Raises:
        ValueError: They are not two batches of images of the same shape.
    """
    if not (isinstance(inputs, (list, tuple)) and len(inputs) == 2 and inputs[0].shape == inputs[1].shape):
        raise ValueError(
            'EBMAlgorithm needs inputs [corrupted, clean] of the same shape: put '
            "dict(type='mmebm.CorruptedPair', corruption=...) before PackInputs in the pipeline of a data set, whose "
            'results have a sample_idx or an img_path'
        )
    return inputs[0], inputs[1]
