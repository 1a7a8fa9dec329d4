"""Token dropping: only a random part of an image's tokens passes through the network."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmebm.models.patches import MOST_EXTRA_TOKENS, gather_patches
from mmebm.models.selfsup.training_pair import TrainingPair
from mmebm.ops.checkpointing import residual_blocks
from mmebm.option_check import check_whole_numbers


class TokenDropping:
    """Keeps a random part of each image's tokens and drops the others before the network's first block.

    For backbones whose blocks take token sequences (N, extra + L, D), class and register tokens first, then L patches
    in raster order, with positions added before the first block: ViT, DeiT and the like.

    All images keep the same number of tokens, so that they can be batched: corrupted patches up to their share, then
    uncorrupted ones, then, where an image has too few of these, more corrupted ones.

    Args:
        backbone: The network.
        patch_size: Side of a patch in pixels.
        visible: Uncorrupted patches to keep, as a share of L.
        corrupted: Corrupted patches to keep and restore, as a share of L.

    Raises:
        ValueError: ``patch_size`` is no whole number above 0, ``visible`` < 0, ``corrupted`` <= 0, their sum is above
            1, or the backbone has no blocks or returns a map of its tokens.
    """

    def __init__(self, backbone: nn.Module, patch_size: int, visible: float, corrupted: float) -> None:
        check_whole_numbers('token_dropping', patch_size=patch_size)
        if not (visible >= 0 and corrupted > 0 and visible + corrupted <= 1):
            raise ValueError(
                'token_dropping: visible must be at least 0, corrupted above 0, and both together at most 1; '
                f'not {visible} and {corrupted}'
            )
        if getattr(backbone, 'out_type', 'raw') == 'featmap':
            raise ValueError("token_dropping: a map (N, D, h, w) needs all tokens; set the backbone's out_type='raw'")
        blocks = residual_blocks(backbone)
        if not blocks:
            raise ValueError(f'token_dropping: found no blocks in {type(backbone).__name__} to drop tokens before')
        self.patch_size = patch_size
        self.num_extra = getattr(backbone, 'num_extra_tokens', None)  # None: unknown
        self.visible = visible
        self.corrupted = corrupted
        self.kept: Tensor | None = None
        self.num_patches = 0
        # Once, not in each step: the compiler treats a module's hooks as constant.
        blocks[0].register_forward_pre_hook(self._drop)

    def choose(self, pair: TrainingPair) -> Tensor:
        """Ascending indices (N, M) of patches to keep of images (N, C, H, W), which patches must tile (ValueError)."""
        p = self.patch_size
        if pair.clean.shape[-1] % p or pair.clean.shape[-2] % p:
            raise ValueError(
                f'token_dropping: patch_size {p} does not divide the image size {tuple(pair.clean.shape[-2:])}'
            )
        changed = pair.changed_patches(self.grid(pair.clean))
        num_patches = changed.shape[1]
        num_corrupted = max(1, round(self.corrupted * num_patches))
        num_kept = num_corrupted + round(self.visible * num_patches)
        order = torch.rand(changed.shape, device=changed.device)
        # Rank of each corrupted patch among its image's corrupted ones.
        rank = (order + (~changed)).argsort(dim=1).argsort(dim=1)
        wanted = changed & (rank < num_corrupted)
        kept = (order + 2.0 * (changed & ~wanted) + 1.0 * ~changed).argsort(dim=1)[:, :num_kept]
        return kept.sort(dim=1).values

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches of images (N, C, H, W)."""
        return images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size

    def pixels(self, kept: Tensor, images: Tensor) -> Tensor:
        """The pixels of the kept patches (N, M) as a mask (N, H, W) of images (N, C, H, W), True = kept."""
        p = self.patch_size
        height, width = self.grid(images)
        mask = torch.zeros(len(kept), height * width, dtype=torch.bool, device=kept.device).scatter_(1, kept, True)
        return mask.view(-1, height, width).repeat_interleave(p, dim=1).repeat_interleave(p, dim=2)

    @contextmanager
    def keeping(self, kept: Tensor, images: Tensor) -> Iterator[None]:
        """Context in which the network reads only the kept patches (N, M) of images (N, C, H, W)."""
        self.kept = kept
        self.num_patches = math.prod(self.grid(images))
        try:
            yield
        finally:
            self.kept = None

    def _drop(self, block: nn.Module, args: tuple) -> tuple | None:
        if self.kept is None:
            return None
        tokens, *others = args
        num_extra = tokens.shape[1] - self.num_patches if tokens.dim() == 3 else -1
        if not 0 <= num_extra <= MOST_EXTRA_TOKENS or self.num_extra not in (None, num_extra):
            raise ValueError(
                f'token_dropping: the blocks of the backbone take features of shape {tuple(tokens.shape)}, not tokens '
                f'(N, {self.num_patches} and at most {MOST_EXTRA_TOKENS} extra ones, D); tokens '
                'can be dropped in ViTs with patches of patch_size'
            )
        return torch.cat([tokens[:, :num_extra], gather_patches(tokens[:, num_extra:], self.kept)], dim=1), *others
