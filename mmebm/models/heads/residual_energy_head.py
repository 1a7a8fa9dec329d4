"""Energy as the distance of an image from a prediction of it by its own features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmebm.models.heads.energy_head import EnergyHead, as_tokens, stages_of
from mmebm.models.patches import MOST_EXTRA_TOKENS, gather_patches, patchify
from mmebm.registry import MODELS


@MODELS.register_module()
class ResidualEnergyHead(EnergyHead):
    """Half the squared distance between an image and a linear prediction of its pixels: E(x) = |x - P f(x)|^2 / 2.

    P maps each of the last features to the pixels of its own patch. A gradient step of size 1 leads to P f(x), up to
    the term for the change of the features with the image. Hurault, Leclaire and Papadakis (Gradient Step Denoiser,
    arXiv 2110.03220) found that a network with an energy of this form denoises as well as one that predicts the clean
    image directly.

    Use it with ``step_size=1.0`` in ``EBMAlgorithm``: ``auto`` starts with shorter steps.

    Args:
        in_channels: Width D of the last stage.
        patch_size: Side in pixels of the square that one feature covers: a ViT's patch size, a CNN's total stride.
        image_channels: Channels C of the image.
        loss: Config of the loss over the restored images; ``RestorationLoss()`` if not given.
        init_cfg: As in mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        patch_size: int,
        image_channels: int = 3,
        loss: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(in_channels, loss=loss, init_cfg=init_cfg)
        self.patch_size = patch_size
        self.is_nonnegative = True
        self.energies = nn.ModuleList([nn.Linear(in_channels, image_channels * patch_size**2)])

    def token_energies(self, feats: Tensor | Sequence[Tensor], images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Energies of the patches, (N, M), in at least float32.

        Args:
            feats: As in ``EnergyHead``; only the last stage is read. Class and other extra tokens come first.
            images: The images of the features, (N, C, H, W).
            kept: Indices (N, M) of the patches of the last M tokens; None for all, row by row.

        Raises:
            ValueError: There are fewer or many more features than patches, the image size is not a multiple of the
                patch size, or the features' width is not D.
        """
        last = stages_of(feats, 1)[-1]
        tokens = as_tokens(last, self.in_channels[-1])
        if any(size % self.patch_size for size in images.shape[-2:]):
            raise ValueError(
                f'ResidualEnergyHead: the image size {tuple(images.shape[-2:])} is not a multiple of the patch size '
                f'{self.patch_size}; train at a multiple of it'
            )
        patches = patchify(images, self.patch_size)
        if kept is not None:
            patches = gather_patches(patches, kept)
        # A map has one feature per patch; a sequence may start with class and register tokens.
        most_extra = MOST_EXTRA_TOKENS if last.dim() == 3 else 0
        if not 0 <= tokens.shape[1] - patches.shape[1] <= most_extra:
            raise ValueError(
                f'ResidualEnergyHead: the backbone returns {tokens.shape[1]} features for {patches.shape[1]} patches '
                f'of {self.patch_size} pixels: patch_size must be its total stride'
            )
        predicted = self.energies[0](tokens[:, -patches.shape[1] :])
        predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
        return (patches - predicted).square().sum(dim=2) / 2
