"""What other methods need to run on the plain ViT and at small images, where mmpretrain's parts ask for more.

The backbones keep the names and the meaning of the weights of mmpretrain's ``VisionTransformer`` and add ``mask_token``
alone, so that whatever fine-tunes one method's checkpoint fine-tunes any other's. All begin as ``SinCosViT``.
"""

import torch.nn.functional as F
from mmpretrain.models.selfsup import MAE, HOGGenerator, MaskFeatViT
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.models.backbones.sincos_vit import SinCosInit
from mmebm.registry import MODELS


@MODELS.register_module()
class RepeatedMAE(MAE):
    """``MAE`` with several masks of each image in a step, as ``PatchEBM`` has several views.

    Args:
        views: How many masks.
        **kwargs: The options of :class:`mmpretrain.models.MAE`.
    """

    def __init__(self, views: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.views = views

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """MAE's loss of normalised images (N, C, H, W), the mean over all their masks."""
        return super().loss(inputs.repeat(self.views, 1, 1, 1), data_samples, **kwargs)


@MODELS.register_module()
class SinCosMaskFeatViT(SinCosInit, MaskFeatViT):
    """The plain ViT for ``MaskFeat``.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the initial weights of ``VisionTransformer``: those of ``MaskFeatViT`` are for a width of 768."""


@MODELS.register_module()
class SimMIMViT(SinCosMaskFeatViT):
    """The plain ViT for ``SimMIM``, as its Swin: masked patches are replaced by a learned token behind the embedding.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W).

        Args:
            x: The images.
            mask: (N, H / p, W / p) for patches of p pixels, 1 = masked; None for the features of whole images.

        Returns:
            With a mask one map (N, C, H / p, W / p), without one what ``VisionTransformer`` returns.
        """
        if mask is None:
            return super().forward(x, None)
        tokens = super().forward(x, mask.flatten(1))
        return (tokens[:, 1:].transpose(1, 2).unflatten(2, mask.shape[1:]),)


@MODELS.register_module()
class BEiTPlainViT(SinCosMaskFeatViT):
    """The plain ViT for ``BEiT``: absolute positions, no layer scale, and no smaller weights in later blocks.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.MaskFeatViT`.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W).

        Args:
            x: The images.
            mask: (N, H / p, W / p) for patches of p pixels, 1 = masked; None for the features of whole images.

        Returns:
            With a mask one sequence of tokens (N, 1 + L, C), the class token first; without one what
            ``VisionTransformer`` returns.
        """
        if mask is None:
            return super().forward(x, None)
        return (super().forward(x, mask.flatten(1)),)


@MODELS.register_module()
class HOGOfPatches(HOGGenerator):
    """MaskFeat's histograms of oriented gradients, for patches of any size; mmpretrain's are for 14 x 14 patches.

    Args:
        patch_size: In pixels; ``pool`` must divide it.
        pool: Width of a cell in pixels.
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
        """Histograms (N, 3, bins, rows, columns) of cells as targets (N, patches, 3 * bins * cells of a patch)."""
        return F.unfold(hog_feat.flatten(1, 2), self.cells, stride=self.cells).transpose(1, 2)
