"""Images as rows of patches, and what is done with them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(images: Tensor, size: int) -> Tensor:
    """The patches (N, L, C size size) of images (N, C, H, W), row by row, each channel by channel."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """Those patches or tokens of (N, L, C) that indices (N, K) name, (N, K, C)."""
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def half_squared_distance(values: Tensor, predicted: Tensor) -> Tensor:
    """|values - predicted|^2 / 2 of each image, (N,), of (N, K, C), summed in at least float32."""
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    return (values - predicted).square().sum(dim=(1, 2)) / 2
