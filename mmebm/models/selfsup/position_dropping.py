"""Position dropping: some patches are read without their position, which restoration finds."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmebm.models.patches import gather_patches
from mmebm.models.selfsup.plain_vit import check_image_size, check_plain_vit
from mmebm.models.selfsup.training_pair import TrainingPair
from mmebm.ops.checkpointing import residual_blocks


class PositionDropping(nn.Module):
    """Takes the position embeddings of P random patches of each image away, and lets restoration find them.

    A position is a vector p of L values, the weights of the grid's L position embeddings in the token. Those that are
    dropped start at zero, and are restored together with the image: each adds |p|^2 / 2 - <p, Q f> to the energy, where
    f is its token's last feature and Q a linear layer. After a step down the gradient, p are the logits of the true
    position.

    For mmpretrain's plain ViTs (``check_plain_vit``): blocks take tokens (N, extra + M, D), class and register tokens
    first.

    Args:
        backbone: The network; its ``pos_embed`` is (1, extra + L, D).
        ratio: Share P / L of the patches.
        weight: Weight of the cross-entropy of positions.

    Raises:
        ValueError: ``ratio`` is not between 0 and 1, ``weight`` is not positive, or the backbone is no such ViT.
    """

    def __init__(self, backbone: nn.Module, ratio: float, weight: float = 0.3) -> None:
        super().__init__()
        if not (0 < ratio < 1 and 0 < weight < math.inf):
            raise ValueError(
                'position_dropping: ratio must be between 0 and 1, and weight above 0; '
                f'not ratio={ratio}, weight={weight}'
            )
        check_plain_vit(backbone, 'position_dropping')
        embedding = backbone.pos_embed
        self.ratio = ratio
        self.weight = weight
        self.num_patches = embedding.shape[1] - backbone.num_extra_tokens
        self.predict = nn.Linear(embedding.shape[2], self.num_patches)
        nn.init.trunc_normal_(self.predict.weight, std=0.02)
        nn.init.zeros_(self.predict.bias)
        self._network = (backbone,)  # a tuple, so that it is no submodule here; a copy of both holds the copy
        self._now: tuple[Tensor, Tensor, Tensor | None] | None = None
        # Once, not in each step: the compiler treats a module's hooks as constant.
        residual_blocks(backbone)[0].register_forward_pre_hook(self._change)

    @property
    def num_dropped(self) -> int:
        """P, at least 1."""
        return max(1, round(self.ratio * self.num_patches))

    @property
    def shape(self) -> tuple[int, int]:
        """P and L."""
        return self.num_dropped, self.num_patches

    def check_images(self, images: Tensor) -> None:
        """See ``check_image_size``."""
        check_image_size(self._network[0], images, 'position_dropping')

    def choose(self, changed: Tensor) -> Tensor:
        """Ascending indices (N, P) into the M patches that are read, as long as there are any among uncorrupted ones.

        Args:
            changed: (N, M), True = corrupted.

        Raises:
            ValueError: M is not above P.
        """
        if changed.shape[1] <= self.num_dropped:
            raise ValueError(
                f'position_dropping: ratio={self.ratio} drops the positions of {self.num_dropped} patches, and only '
                f'{changed.shape[1]} are read; lower ratio, or raise the shares of token_dropping'
            )
        order = torch.rand(changed.shape, device=changed.device) + changed
        return order.argsort(dim=1)[:, : self.num_dropped].sort(dim=1).values

    @contextmanager
    def placing(self, dropped: Tensor, positions: Tensor, kept: Tensor | None) -> Iterator[None]:
        """Context in which the network reads other positions.

        Args:
            dropped: Indices (N, P) into the patches that are read.
            positions: Weights (N, P, L) of the grid's position embeddings in their tokens.
            kept: Indices (N, M) of the patches that are read; None for all.
        """
        self._now = dropped, positions, kept
        try:
            yield
        finally:
            self._now = None

    def logits(self, tokens: Tensor, dropped: Tensor, kept: Tensor | None) -> Tensor:
        """Q f of each dropped position, (N, P, L), in at least float32.

        Args:
            tokens: The last features f, (N, extra + M, D).
            dropped: Indices (N, P) into the M patches.
            kept: Indices (N, M) of the patches that are read; None for all.
        """
        if tokens.dim() != 3:
            raise ValueError(
                f'position_dropping: the backbone must return tokens (N, L, D), not {tuple(tokens.shape)}: set '
                "out_type='raw'"
            )
        logits = self.predict(gather_patches(tokens, self._num_extra(tokens, kept) + dropped))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def losses(self, positions: Tensor, pair: TrainingPair) -> dict[str, Tensor]:
        """Cross-entropy, times ``weight``, and accuracy of restored positions (N, P, L)."""
        own = _in_grid(pair.dropped, pair.kept).flatten()
        logits = positions.flatten(0, 1)
        return dict(
            loss_position=self.weight * F.cross_entropy(logits, own),
            position_accuracy=(logits.argmax(dim=1) == own).float().mean(),
        )

    def _change(self, block: nn.Module, args: tuple) -> tuple | None:
        if self._now is None:
            return None
        tokens, *others = args
        dropped, positions, kept = self._now
        grid = self._network[0].pos_embed[:, -self.num_patches :].expand(len(tokens), -1, -1)
        change = positions.to(grid.dtype) @ grid - gather_patches(grid, _in_grid(dropped, kept))
        where = self._num_extra(tokens, kept) + dropped
        return tokens.scatter_add(1, where.unsqueeze(-1).expand_as(change), change.to(tokens.dtype)), *others

    def _num_extra(self, tokens: Tensor, kept: Tensor | None) -> int:
        """Class and register tokens in front of those of the patches."""
        num_extra, num_read = self._network[0].num_extra_tokens, self.num_patches if kept is None else kept.shape[1]
        if tokens.shape[1] != num_extra + num_read:
            raise ValueError(
                f'position_dropping: {tokens.shape[1]} tokens where the network has {num_extra} extra ones and reads '
                f'{num_read} patches: train at the image size of its position embeddings, backbone.img_size'
            )
        return num_extra


def _in_grid(dropped: Tensor, kept: Tensor | None) -> Tensor:
    """The patches' indices (N, P) in the whole grid."""
    return dropped if kept is None else kept.gather(1, dropped)
