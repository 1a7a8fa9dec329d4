"""What a ``Restorer`` says of one image. All tensors are on the CPU."""

from typing import NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from mmebm.visualization.figures import to_picture

# Said wherever energies are written.
POLARITY = 'higher energy = less like the training images'


class RestoredImage(NamedTuple):
    """An image, corrupted and restored.

    Attributes:
        source: Its path, or its place among the inputs, as ``image 3``.
        images: x_0 (corrupted, or as given) to x_K (restored), (K + 1, C, H, W), in pixel units, 0 to 255; three
            channels are RGB.
        energies: E(x_0) to E(x_K), (K + 1,); None if the model has no energy.
        clean: The image before the corruption, (C, H, W); None if it was restored as given.
    """

    source: str
    images: Tensor
    energies: Tensor | None
    clean: Tensor | None

    @property
    def pictures(self) -> list[NDArray]:
        """``images`` as uint8 arrays (H, W, 3), RGB, or (H, W) if there are not three channels."""
        return [to_picture(image) for image in self.images]

    @property
    def residual(self) -> Tensor:
        """What the restoration changes, |x_K - x_0| in pixel units, mean over channels, (H, W)."""
        return (self.images[-1] - self.images[0]).abs().mean(dim=0)


class ImageEnergy(NamedTuple):
    """The energy of an image; higher = less like the training images, for the maps too.

    Attributes:
        source: Its path, or its place among the inputs, as ``image 3``.
        energy: E(x).
        token_energies: Its part of each token, (h, w); None if the head has none, or they are no grid.
        gradient: |dE/dx| of each pixel, in normalised pixels, the norm over channels, (H, W); None without maps.
        image: The image as the model sees it, (C, H, W), in pixel units; three channels are RGB. None without maps.
    """

    source: str
    energy: float
    token_energies: Tensor | None
    gradient: Tensor | None
    image: Tensor | None


class ImageFeatures(NamedTuple):
    """The features of an image.

    Attributes:
        source: Its path, or its place among the inputs, as ``image 3``.
        features: (D,); if not pooled, a map (D, h, w), or tokens (L, D) if these are no grid.
    """

    source: str
    features: Tensor
