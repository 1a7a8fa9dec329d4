"""Which patches of a batch a training step reads, which of them without position, and which are corrupted."""

import math

import torch
from torch import Tensor

from mmebm.models.patches import patch_grid
from mmebm.models.selfsup.content_dropping import ContentDropping
from mmebm.models.selfsup.position_dropping import PositionDropping
from mmebm.models.selfsup.token_dropping import TokenDropping
from mmebm.models.selfsup.training_pair import TrainingPair


class PatchChoice:
    """Chooses the patches of a training step at random.

    Args:
        token_dropping: Chooses those that are read; None: all are.
        position_dropping: Chooses those that are read without position; None: none are.
        content_dropping: Chooses those that are restored without being read, needs ``token_dropping``; None: none are.
    """

    def __init__(
        self,
        token_dropping: TokenDropping | None,
        position_dropping: PositionDropping | None,
        content_dropping: ContentDropping | None = None,
    ) -> None:
        self.token_dropping = token_dropping
        self.position_dropping = position_dropping
        self.content_dropping = content_dropping
        self.droppings = [part for part in (position_dropping, content_dropping) if part]

    def __call__(self, corrupted: Tensor, clean: Tensor, replaced: Tensor | None = None) -> TrainingPair:
        """A training pair.

        Args:
            corrupted: (N, C, H, W).
            clean: Likewise.
            replaced: As in ``TrainingPair``.

        Raises:
            ValueError: The images are not of the size that the dropped positions or contents are for, or do not have
                the patches that are dropped.
        """
        pair = TrainingPair(corrupted, clean, replaced=replaced)
        for dropping in self.droppings:
            dropping.check_images(clean)
        if self.token_dropping:
            num_patches = math.prod(self.token_dropping.grid(clean))
            if any(dropping.num_patches != num_patches for dropping in self.droppings):
                raise ValueError(
                    f'token_dropping: the images have {num_patches} patches of patch_size '
                    f'{self.token_dropping.patch_size}, but the backbone has {self.droppings[0].num_patches} position '
                    'embeddings: set it to the patch size of the backbone'
                )
            kept = self.token_dropping.choose(pair)
            pair = pair._replace(kept=kept, where=self.token_dropping.pixels(kept, clean))
            if self.content_dropping:
                pair = pair._replace(missing=self.content_dropping.choose(kept, num_patches))
        if self.position_dropping:
            changed = self.changed(pair, self.position_dropping.num_patches)
            pair = pair._replace(dropped=self.position_dropping.choose(changed), changed=changed)
        return pair

    def changed(self, pair: TrainingPair, num_tokens: int) -> Tensor:
        """Which patches of those that are read are corrupted, (N, M), True = corrupted.

        Args:
            pair: The images.
            num_tokens: Of an image, extra ones included; read if no tokens are dropped.

        Raises:
            ValueError: The tokens are no grid of square patches.
        """
        if pair.changed is not None:
            return pair.changed
        if self.token_dropping:
            grid = self.token_dropping.grid(pair.clean)
            return pair.changed_patches(grid).gather(1, pair.kept)
        grid = patch_grid(num_tokens, pair.clean.shape[-2:])
        if grid is None or math.prod(grid) == 1:
            raise ValueError(
                f'EBMAlgorithm: {num_tokens} tokens are no grid of square patches of {tuple(pair.clean.shape[-2:])} '
                'pixels, as token_nce_weight and position_dropping need; choose another image size'
            )
        return pair.changed_patches(grid)


def placed(pair: TrainingPair, changed: Tensor) -> Tensor | None:
    """Which patches of those that are read have their position, (N, M) as ``changed``; None for all."""
    return None if pair.dropped is None else torch.ones_like(changed).scatter(1, pair.dropped, False)
