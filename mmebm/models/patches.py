"""Images as sequences of patches, and operations on them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(images: Tensor, size: int) -> Tensor:
    """The patches (N, L, C size size) of images (N, C, H, W), row by row; values of a patch channel by channel."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """Patches or tokens (N, M, D) of (N, L, D) at indices (N, M)."""
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def half_squared_distance(values: Tensor, predicted: Tensor) -> Tensor:
    """|values - predicted|^2 / 2 per image, (N,), of (N, M, D) each, summed in at least float32."""
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    return (values - predicted).square().sum(dim=(1, 2)) / 2
