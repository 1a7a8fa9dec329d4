"""A plain vision transformer for large images: attention within windows in all but a few blocks."""

from collections.abc import Sequence
from itertools import groupby

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mmebm.registry import MODELS


@MODELS.register_module()
class WindowedViT(VisionTransformer):
    """mmpretrain's VisionTransformer as a detection backbone, after ViTDet (arXiv 2203.16527, section 3).

    It has exactly the parameters of the pretrained network, and equals it wherever one window covers the image.
    Position embeddings are absolute, resized to the grid of each batch. Windows at the right and lower border cover the
    remainder of the grid, so nothing is padded. Each window gets its own copy of the class token; the copies are
    averaged after each run of windowed blocks.

    Args:
        window_size: Side of a window, in patches.
        num_global: Number of blocks that attend to the whole image, evenly spaced and including the last block; all
            other blocks attend within windows.
        **kwargs: The options of VisionTransformer, without ``out_indices`` and ``out_type``. ``drop_path_rate`` drops
            windowed blocks independently for each window.

    Raises:
        ValueError: ``window_size`` is below 1, or ``num_global`` negative or above the number of blocks.
    """

    def __init__(self, window_size: int = 14, num_global: int = 4, **kwargs):
        super().__init__(out_indices=-1, out_type='featmap', **kwargs)
        if window_size < 1:
            raise ValueError(f'WindowedViT: window_size must be at least 1, not {window_size}')
        if not 0 <= num_global <= self.num_layers:
            raise ValueError(f'WindowedViT: num_global must be 0 to {self.num_layers} (its blocks), not {num_global}')
        self.window_size = window_size
        self.global_blocks = {(i + 1) * self.num_layers // num_global - 1 for i in range(num_global)}

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """The last features (N, D, H / patch, W / patch) of normalised images (N, C, H, W)."""
        tokens, grid = self.patch_embed(images)  # (N, L, D), in raster order
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        positions = resize_pos_embed(
            self.pos_embed, self.patch_resolution, grid, self.interpolate_mode, self.num_extra_tokens
        )
        tokens = self.pre_norm(self.drop_after_pos(tokens + positions))
        for is_global, run in groupby(enumerate(self.layers), lambda item: item[0] in self.global_blocks):
            blocks = [block for _, block in run]
            tokens = _apply(blocks, tokens) if is_global else self._in_windows(blocks, tokens, grid)
        if self.final_norm:
            tokens = self.ln1(tokens)
        return (self._format_output(tokens, grid),)

    def _in_windows(self, blocks: Sequence[nn.Module], tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Applies the blocks to each window, with its copy of the class token, as to a separate image."""
        extra, patches = tokens.tensor_split([self.num_extra_tokens], dim=1)
        groups = window_indices(grid, self.window_size, tokens.device)
        outputs = []
        for index in groups:
            windows = patches.index_select(1, index.flatten()).unflatten(1, index.shape)  # (N, windows, patches, D)
            copies = extra[:, None].expand(-1, len(index), -1, -1)
            windows = torch.cat([copies, windows], dim=2)
            outputs.append(_apply(blocks, windows.flatten(0, 1)).unflatten(0, windows.shape[:2]))
        split = [output.tensor_split([self.num_extra_tokens], dim=2) for output in outputs]
        extra = torch.cat([copies for copies, _ in split], dim=1).mean(dim=1)
        patches = torch.cat([windows.flatten(1, 2) for _, windows in split], dim=1)
        back = torch.cat([index.flatten() for index in groups]).argsort()
        return torch.cat([extra, patches.index_select(1, back)], dim=1)


def window_indices(grid: tuple[int, int], window_size: int, device: torch.device | None = None) -> list[Tensor]:
    """Cuts a grid of patches into windows, starting at the upper left corner.

    Args:
        grid: Rows and columns of patches.
        window_size: Side of a window in patches; those at the right and lower border may be smaller.
        device: Device of the result.

    Returns:
        The raster indices (windows, patches) of the patches, one tensor per shape of window, at most four.
    """
    index = torch.arange(grid[0] * grid[1], device=device).view(grid)
    groups = []
    for rows in index.split(_whole_and_rest(grid[0], window_size), dim=0):
        for block in rows.split(_whole_and_rest(grid[1], window_size), dim=1):
            height, width = (min(window_size, size) for size in block.shape)
            windows = block.unflatten(1, (-1, width)).unflatten(0, (-1, height)).transpose(1, 2)
            groups.append(windows.flatten(2).flatten(0, 1))
    return groups


def _whole_and_rest(size: int, window_size: int) -> list[int]:
    """The length of a side that whole windows fill, and the remainder; zeros are left out."""
    rest = size % window_size
    return [part for part in (size - rest, rest) if part]


def _apply(blocks: Sequence[nn.Module], tokens: Tensor) -> Tensor:
    for block in blocks:
        tokens = block(tokens)
    return tokens
