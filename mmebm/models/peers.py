"""Parts of other methods for the plain ViT and small images, which mmpretrain's own parts do not support.

The backbones keep the names and meaning of the weights of mmpretrain's ``VisionTransformer`` and add only
``mask_token``, so one config fine-tunes the checkpoints of all methods. All are initialised as ``SinCosViT``.
"""

import torch.nn.functional as F
from mmpretrain.models.selfsup import MAE, HOGGenerator, MaskFeatViT
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.models.backbones.sincos_vit import SinCosInit
from mmebm.registry import MODELS


@MODELS.register_module()
class RepeatedMAE(MAE):
    """``MAE`` with several masks per image in a step, as the views of ``PatchEBM``.

    Args:
        views: Number of masks per image.
        **kwargs: The options of :class:`mmpretrain.models.MAE`.
    """

    def __init__(self, views: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.views = views

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """MAE's loss of normalised images (N, C, H, W), the mean over all masks."""
        return super().loss(inputs.repeat(self.views, 1, 1, 1), data_samples, **kwargs)


@MODELS.register_module()
class SinCosMaskFeatViT(SinCosInit, MaskFeatViT):
    """The plain ViT for ``MaskFeat``.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the initialisation of ``VisionTransformer``: that of ``MaskFeatViT`` is for a width of 768."""


@MODELS.register_module()
class SimMIMViT(SinCosMaskFeatViT):
    """The plain ViT for ``SimMIM``, as its Swin: a learned token replaces masked patches after the patch embedding.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W).

        Args:
            x: The images.
            mask: (N, H / p, W / p) for patches of p pixels, 1 = masked; None for the features of whole images.

        Returns:
            With a mask, one map (N, D, H / p, W / p); without, what ``VisionTransformer`` returns.
        """
        if mask is None:
            return super().forward(x, None)
        tokens = super().forward(x, mask.flatten(1))
        return (tokens[:, 1:].transpose(1, 2).unflatten(2, mask.shape[1:]),)


@MODELS.register_module()
class BEiTPlainViT(SinCosMaskFeatViT):
    """The plain ViT for ``BEiT``: absolute positions, no layer scale, no rescaled weights in later blocks.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W).

        Args:
            x: The images.
            mask: (N, H / p, W / p) for patches of p pixels, 1 = masked; None for the features of whole images.

        Returns:
            With a mask, one sequence of tokens (N, 1 + L, D), the class token first; without, what
            ``VisionTransformer`` returns.
        """
        if mask is None:
            return super().forward(x, None)
        return (super().forward(x, mask.flatten(1)),)


@MODELS.register_module()
class HOGOfPatches(HOGGenerator):
    """MaskFeat's histograms of oriented gradients for any patch size; mmpretrain's are for 14 x 14 patches.

    Args:
        patch_size: Side of a patch in pixels; a multiple of ``pool``.
        pool: Side of a cell in pixels.
        **kwargs: The options of :class:`mmpretrain.models.HOGGenerator`.

    Raises:
        ValueError: ``pool`` does not divide ``patch_size``.
    """

    def __init__(self, patch_size: int, pool: int, **kwargs) -> None:
        if patch_size % pool:
            raise ValueError(f'HOGOfPatches: pool={pool} does not divide patch_size={patch_size}')
        super().__init__(pool=pool, **kwargs)
        self.cells = patch_size // pool

    def _reshape(self, hog_feat: Tensor) -> Tensor:
        """Histograms (N, 3, bins, rows, columns) of cells as targets (N, L, 3 * bins * cells per patch)."""
        return F.unfold(hog_feat.flatten(1, 2), self.cells, stride=self.cells).transpose(1, 2)
