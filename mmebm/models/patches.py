"""Images as sequences of patches, and operations on them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_EXTRA_TOKENS = 8  # class, distillation and register tokens; a wrong patch size leaves more
STRIDES = (2, 4, 8, 16, 32, 64)  # of CNNs, in total


def patchify(images: Tensor, size: int) -> Tensor:
    """The patches (N, L, C size size) of images (N, C, H, W), row by row; values of a patch channel by channel."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def patch_grid(num_tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of square patches that tile an image, among whose tokens at most eight are extra ones.

    None if there is no such grid. Class, distillation and register tokens are extra ones.
    """
    height, width = image_size
    fewest = max(num_tokens - MOST_EXTRA_TOKENS, 1)
    if _is_map_of_rounded_size(num_tokens, height, width):
        fewest = num_tokens  # its last positions are no patches behind extra tokens
    for num_patches in range(num_tokens, fewest - 1, -1):
        size = math.isqrt(height * width // num_patches)
        if size and size**2 * num_patches == height * width and height % size == width % size == 0:
            return height // size, width // size
    return None


def _is_map_of_rounded_size(num_tokens: int, height: int, width: int) -> bool:
    """Whether a CNN whose total stride does not divide the image size may return a map of so many positions."""
    if height == width:
        side = math.isqrt(num_tokens)
        return side**2 == num_tokens and height % side > 0
    maps = [(-(-height // stride) * -(-width // stride), (height // stride) * (width // stride)) for stride in STRIDES]
    return any(num_tokens in rounded for rounded in maps)


def changed_patches(corrupted: Tensor, clean: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches of images (N, C, H, W) differ in any pixel, (N, L), row by row; ``grid`` is rows and columns."""
    return marked_patches((corrupted != clean).any(dim=1), grid)


def marked_patches(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches have a True in a mask (N, H, W) of pixels, (N, L), row by row; ``grid`` is rows and columns."""
    rows, columns = pixels.shape[1] // grid[0], pixels.shape[2] // grid[1]
    return pixels.unflatten(2, (grid[1], columns)).unflatten(1, (grid[0], rows)).any(dim=4).any(dim=2).flatten(1)


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """Patches or tokens (N, M, D) of (N, L, D) at indices (N, M)."""
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def half_squared_distance(values: Tensor, predicted: Tensor) -> Tensor:
    """|values - predicted|^2 / 2 per image, (N,), of (N, M, D) each, summed in at least float32."""
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    return (values - predicted).square().sum(dim=(1, 2)) / 2
