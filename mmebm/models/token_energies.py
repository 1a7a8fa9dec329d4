"""Energies of an image's tokens: their sum, and where in the image they are."""

import math

from torch import Tensor

from mmebm.models.patches import patch_grid


def of_images(parts: Tensor) -> Tensor:
    """Energies (N,) of images, of these themselves or of their tokens' (N, M)."""
    return parts if parts.dim() == 1 else parts.sum(dim=1)


def token_map(parts: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    """Energies (N, h, w) of the patches, row by row, of those of tokens (N, M); None if the tokens are no such grid."""
    grid = patch_grid(parts.shape[1], image_size) if parts.dim() == 2 else None
    return None if grid is None else parts[:, -math.prod(grid) :].unflatten(1, grid)
