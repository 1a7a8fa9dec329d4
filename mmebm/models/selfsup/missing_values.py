"""What restoration restores beside pixels, packed with these into one vector per image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class MissingValues:
    """Packs images (N, C, H, W) and missing values of several kinds, (N, R, D) each, into (N, C H W + sum of R D).

    All missing values start at zero, and their step size is 1: each adds |v|^2 / 2 - <v, q> to the energy, where q is
    what the network predicts, so that a step from zero gives v = q. Without any, images stay images.

    Args:
        shapes: R and D of each kind.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = list(shapes)
        self.number = sum(rows for rows, _ in self.shapes)
        self.size = sum(rows * length for rows, length in self.shapes)

    def start(self, images: Tensor) -> Tensor:
        """Images and their missing values, zeros."""
        return F.pad(images.flatten(1), (0, self.size)) if self.shapes else images

    def unpack(self, x: Tensor, image_shape: torch.Size) -> tuple[Tensor, list[Tensor]]:
        """Images (N, C, H, W) of ``image_shape``, and missing values (N, R, D) of each kind."""
        if not self.shapes:
            return x, []
        sizes = [image_shape[1:].numel(), *(rows * length for rows, length in self.shapes)]
        images, *values = x.split(sizes, dim=1)
        shaped = [part.reshape(len(x), *shape) for part, shape in zip(values, self.shapes, strict=True)]
        return images.reshape(-1, *image_shape[1:]), shaped

    def step_sizes(self, x: Tensor, step_size: Tensor) -> Tensor:
        """Step sizes (1, C H W + ...) of what is packed in x: ``step_size`` (1,) for pixels, 1 for missing values."""
        if not self.shapes:
            return step_size
        return torch.cat([step_size.expand(x.shape[1] - self.size), step_size.new_ones(self.size)])[None]


def energies_of(values: Sequence[Tensor], predicted: Sequence[Tensor]) -> list[Tensor]:
    """|v|^2 / 2 - <v, q>, (N, R), of missing values v (N, R, D) of each kind and what is predicted for them, q."""
    return [(v.square() / 2 - v * q).sum(dim=2) for v, q in zip(values, predicted, strict=True)]
