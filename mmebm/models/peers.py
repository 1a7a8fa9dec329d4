"""Parts of other methods for the plain ViT and small images, which mmpretrain's own parts do not support.

The backbones keep the names and meaning of the weights of mmpretrain's ``VisionTransformer`` and add only
``mask_token``, so one config fine-tunes the checkpoints of all methods. All are initialised as ``SinCosViT``.
"""

import torch
import torch.nn.functional as F
from mmpretrain.models import MAEPretrainHead
from mmpretrain.models.selfsup import MAE, HOGGenerator, MAEViT, MaskFeatViT
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.models.backbones.sincos_vit import SinCosInit
from mmebm.models.patches import gather_patches
from mmebm.option_check import check_not_negative
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
class PlacesMAEViT(MAEViT):
    """``MAEViT`` that also reads some of the masked patches, without position embedding.

    Args:
        position_drop_ratio: Share P / L of these patches; ``mask_ratio`` is the share of all but the V visible ones.
        **kwargs: The options of :class:`mmpretrain.models.MAEViT`.

    Raises:
        ValueError: The ratios leave no patch visible, position-dropped or masked.
    """

    def __init__(self, position_drop_ratio: float = 0.25, **kwargs) -> None:
        super().__init__(**kwargs)
        ratios = dict(mask_ratio=self.mask_ratio, position_drop_ratio=position_drop_ratio)
        for name, ratio in ratios.items():
            if not (isinstance(ratio, (int, float)) and 0 < ratio < 1):
                raise ValueError(f'PlacesMAEViT: {name} must be between 0 and 1, not {ratio!r}')
        self.num_dropped = round(position_drop_ratio * self.num_patches)
        num_visible = int(self.num_patches * (1 - self.mask_ratio))  # as in random_masking
        if not (num_visible > 0 and self.num_dropped > 0 and num_visible + self.num_dropped < self.num_patches):
            raise ValueError(
                f'PlacesMAEViT: mask_ratio={self.mask_ratio} makes {num_visible} of {self.num_patches} patches visible '
                f'and position_drop_ratio={position_drop_ratio} shows {self.num_dropped} without position; each must '
                'be 1 or more, and one patch must be left'
            )

    def forward(self, x: Tensor, mask: bool | None = True) -> tuple[Tensor, ...]:
        """Features of some patches of images (N, 3, H, W).

        Args:
            x: The images.
            mask: Whether patches are masked at random; otherwise, the features are those of whole images.

        Returns:
            As ``MAEViT``, the last features (N, 1 + V, D) of class token and visible patches, which patches are not
            visible (N, L), 1 = not, and the ranks of all patches in the random order (N, L); then the last features
            (N, P, D) of the position-dropped patches, and their places (N, P), numbered row by row. Without ``mask``,
            what ``VisionTransformer`` returns.
        """
        if not mask:
            return super().forward(x, None)
        patches, _ = self.patch_embed(x)
        visible, masked, ranks = self.random_masking(patches + self.pos_embed[:, 1:], self.mask_ratio)
        num_visible = visible.shape[1]
        places = ranks.argsort(dim=1)[:, num_visible : num_visible + self.num_dropped]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([class_token, visible, gather_patches(patches, places)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        read, dropped = self.norm1(tokens).tensor_split([1 + num_visible], dim=1)
        return read, masked, ranks, dropped, places


@MODELS.register_module()
class PlacesMAEHead(MAEPretrainHead):
    """``MAEPretrainHead`` with a linear classifier of the places of position-dropped patches.

    Args:
        embed_dims: Width D of the backbone.
        num_patches: L, the number of places.
        position_weight: Weight of the cross-entropy of places, relative to the loss of contents.
        init_cfg: As in mmengine's BaseModule.
        **kwargs: The options of :class:`mmpretrain.models.MAEPretrainHead`.

    Raises:
        ValueError: ``position_weight`` is negative.
    """

    def __init__(
        self,
        embed_dims: int,
        num_patches: int,
        position_weight: float = 0.3,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check_not_negative('PlacesMAEHead', position_weight=position_weight)
        self.init_cfg = init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02)
        self.position_weight = position_weight
        self.place = nn.Linear(embed_dims, num_patches)

    def position_loss(self, features: Tensor, places: Tensor) -> dict[str, Tensor]:
        """Weighted cross-entropy and accuracy of places (N, P), predicted from features (N, P, D)."""
        logits, targets = self.place(features).flatten(0, 1), places.flatten()
        return dict(
            loss_position=self.position_weight * F.cross_entropy(logits, targets),
            position_accuracy=(logits.argmax(dim=1) == targets).float().mean(),
        )


@MODELS.register_module()
class PlacesMAE(MAE):
    """``MAE`` whose encoder also classifies the places of patches that it reads without position embedding.

    Its decoder reads the visible patches alone, and the loss of contents is MAE's: over all others, position-dropped
    ones included.

    Args:
        backbone: Config of a ``PlacesMAEViT``.
        head: Config of a ``PlacesMAEHead``.
        **kwargs: The options of :class:`mmpretrain.models.MAE`.

    Raises:
        ValueError: Backbone and head have different widths or numbers of patches.
    """

    def __init__(self, backbone: dict, head: dict, **kwargs) -> None:
        super().__init__(backbone=backbone, head=head, **kwargs)
        found = self.head.place.in_features, self.head.place.out_features
        expected = self.backbone.embed_dims, self.backbone.num_patches
        if found != expected:
            raise ValueError(
                f'PlacesMAE: the backbone is {expected[0]} wide and has {expected[1]} patches; set head.embed_dims and '
                f'head.num_patches to these, not to {found[0]} and {found[1]}'
            )

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """MAE's loss, that of places, and the accuracy of places, for normalised images (N, C, H, W)."""
        read, masked, ranks, dropped, places = self.backbone(inputs)
        reconstruction = self.head.loss(self.neck(read, ranks), inputs, masked)
        return dict(loss_reconstruction=reconstruction) | self.head.position_loss(dropped, places)


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
