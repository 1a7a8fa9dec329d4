"""What ``PatchEBM`` predicts: contents of masked patches and positions of position-dropped ones. No weights."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmebm.models.patches import gather_patches, patchify

# Added to the variance of a patch: a standard deviation of 0.03, two of 255 grey levels, counts as flat.
FLAT = 1e-3


class PatchSplit(NamedTuple):
    """The split of each image's L patches, V + P + R = L: indices of patches numbered row by row.

    Attributes:
        visible: (N, V), read with position embedding.
        position_dropped: (N, P), read without position embedding.
        masked: (N, R), not read.
    """

    visible: Tensor
    position_dropped: Tensor
    masked: Tensor


class PatchCodec(nn.Module):
    """Encodes patches as contents and positions, and composes images from them.

    The contents of a patch are its pattern: pixels minus their mean, divided by their standard deviation, as in MAE's
    targets (arXiv 2111.06377); and its statistics: the mean of each channel and the logarithm of the standard
    deviation. Positions are sines and cosines of both coordinates.

    The missing values of an image form one vector x: the contents of its masked and the positions of its
    position-dropped patches, S = R (C p p + C + 1) + P D values for patches of p x p pixels. x = 0 means flat patches
    of the images' mean color.

    Args:
        grid_size: Rows and columns of the grid of patches.
        patch_size: Side p of a patch in pixels.
        image_channels: Channels C of the image.
        position_dims: Length D of a position, a multiple of 4.
    """

    def __init__(self, grid_size: tuple[int, int], patch_size: int, image_channels: int, position_dims: int) -> None:
        super().__init__()
        self.grid_size = tuple(grid_size)
        self.patch_size = patch_size
        self.image_channels = image_channels
        self.pattern_dims = image_channels * patch_size**2
        self.content_dims = self.pattern_dims + image_channels + 1
        # The function lists positions column by column, while patches are in row-major order.
        positions = build_2d_sincos_position_embedding(self.grid_size[::-1], position_dims)[0]
        self.register_buffer('positions', positions, persistent=False)  # (L, D)

    def contents(self, images: Tensor) -> Tensor:
        """Contents (N, L, C p p + C + 1) of the patches of images (N, C, H, W)."""
        patches = patchify(images, self.patch_size)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        std = (variance + FLAT).sqrt()
        color = self._by_channel(patches).mean(dim=-1)
        return torch.cat([(patches - mean) / std, color, std.log()], dim=-1)

    def _pixels(self, contents: Tensor) -> Tensor:
        """Patches (N, R, C p p) of contents (N, R, C p p + C + 1); the mean of a pattern is ignored."""
        pattern, color, log_std = contents.split([self.pattern_dims, self.image_channels, 1], dim=-1)
        values = self._by_channel(log_std.exp() * pattern)
        return (values - values.mean(dim=-1, keepdim=True) + color.unsqueeze(-1)).flatten(2)

    def _by_channel(self, patches: Tensor) -> Tensor:
        return patches.reshape(*patches.shape[:2], self.image_channels, -1)

    def start(self, split: PatchSplit) -> Tensor:
        """Initial values of restoration: flat patches and no positions, zeros (N, S)."""
        num_positions = split.position_dropped.shape[1] * self.positions.shape[1]
        num_values = split.masked.shape[1] * self.content_dims + num_positions
        return self.positions.new_zeros(len(split.masked), num_values)

    def truth(self, contents: Tensor, split: PatchSplit) -> Tensor:
        """True missing values (N, S), given the contents (N, L, C p p + C + 1) of all patches."""
        positions = self.positions_of(split.position_dropped)
        return torch.cat([gather_patches(contents, split.masked).flatten(1), positions.flatten(1)], dim=1)

    def unpack(self, missing: Tensor, split: PatchSplit) -> tuple[Tensor, Tensor]:
        """Contents (N, R, C p p + C + 1) and positions (N, P, D) in missing values (N, S)."""
        num_contents = split.masked.shape[1] * self.content_dims
        # Not unflatten, which the compiler cannot trace here.
        contents = missing[:, :num_contents].reshape(len(missing), -1, self.content_dims)
        return contents, missing[:, num_contents:].reshape(len(missing), -1, self.positions.shape[1])

    def positions_of(self, indices: Tensor) -> Tensor:
        """The positions (N, M, D) of patches with indices (N, M)."""
        return gather_patches(self.positions.expand(len(indices), -1, -1), indices)

    def similarity(self, positions: Tensor, grid: Tensor) -> Tensor:
        """Dot products (N, P, M) of positions (N, P, D) with others, (N, D, M) or (D, M).

        All positions of the grid have the same norm, so the nearest one has the largest product. It is computed in the
        grid's precision even under autocast: half precision does not distinguish neighbours.
        """
        with torch.autocast(positions.device.type, enabled=False):
            return positions.to(grid.dtype) @ grid

    def assign(self, positions: Tensor, split: PatchSplit) -> Tensor:
        """Indices (N, P) of position-dropped patches, permuted to match restored positions (N, P, D) best in sum."""
        products = self.similarity(positions, self.positions_of(split.position_dropped).transpose(1, 2))  # (N, P, P)
        columns = [linear_sum_assignment(one, maximize=True)[1] for one in products.cpu().numpy()]
        indices = torch.as_tensor(np.stack(columns), device=split.position_dropped.device)
        return split.position_dropped.gather(1, indices)

    def compose(self, images: Tensor, split: PatchSplit, contents: Tensor, cells: Tensor) -> Tensor:
        """Images (N, C, H, W) with other contents of masked patches, and position-dropped patches at other positions.

        Args:
            images: (N, C, H, W).
            split: The visible, position-dropped and masked patches.
            contents: (N, R, C p p + C + 1), of the masked patches.
            cells: Indices (N, P) of the new positions of the position-dropped patches, a permutation of their own.
        """
        patches = patchify(images, self.patch_size)
        changed = torch.cat([self._pixels(contents), gather_patches(patches, split.position_dropped)], dim=1)
        where = torch.cat([split.masked, cells], dim=1).unsqueeze(-1).expand_as(changed)
        patches = patches.scatter(1, where, changed)
        return F.fold(patches.transpose(1, 2), images.shape[-2:], self.patch_size, stride=self.patch_size)
