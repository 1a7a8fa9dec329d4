"""The error of restored images against clean ones."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmebm.option_check import check_not_negative, check_whole_numbers
from mmebm.registry import MODELS

PIXEL_LOSSES = {'smooth_l1': F.smooth_l1_loss, 'l2': F.mse_loss, 'l1': F.l1_loss}


@MODELS.register_module()
class RestorationLoss(nn.Module):
    """Mean error of a restored image against the clean one, in normalised pixels.

    Args:
        kind: The error of one value; ``smooth_l1`` has beta = 1.
        region: Average over the ``whole`` image, or over the ``corrupted`` pixels only: those where the corrupted and
            the clean image differ in any channel.
        norm_patch_size: If given, the error is that of patterns within patches of this side in pixels: both images'
            patches minus their own means, divided by the standard deviation of the clean patch, so that all patches of
            a standard deviation above 0.1 have about equal weight (the target normalisation of MAE, arXiv 2111.06377,
            for a network that predicts pixels).
        pixel_weight: With ``norm_patch_size``, the weight of the plain pixel error, relative to that of patterns; at 0,
            the mean colour of patches is not restored.
        loss_weight: Factor of all.

    Raises:
        ValueError: Unknown ``kind`` or ``region``, ``norm_patch_size`` is no whole number of at least 1,
            ``pixel_weight`` is negative or set without it, or an image that the patch size does not divide.
    """

    def __init__(
        self,
        kind: Literal['smooth_l1', 'l2', 'l1'] = 'smooth_l1',
        region: Literal['whole', 'corrupted'] = 'whole',
        norm_patch_size: int | None = None,
        pixel_weight: float = 0.0,
        loss_weight: float = 1.0,
    ):
        super().__init__()
        if kind not in PIXEL_LOSSES:
            raise ValueError(f'RestorationLoss: kind must be one of {list(PIXEL_LOSSES)}, not {kind!r}')
        if region not in ('whole', 'corrupted'):
            raise ValueError(f"RestorationLoss: region must be 'whole' or 'corrupted', not {region!r}")
        if norm_patch_size is not None:
            check_whole_numbers('RestorationLoss', norm_patch_size=norm_patch_size)
        check_not_negative('RestorationLoss', pixel_weight=pixel_weight, loss_weight=loss_weight)
        if pixel_weight and norm_patch_size is None:
            raise ValueError(f'RestorationLoss: pixel_weight={pixel_weight!r} needs norm_patch_size')
        self.pixel_loss = PIXEL_LOSSES[kind]
        self.region = region
        self.norm_patch_size = norm_patch_size
        self.pixel_weight = pixel_weight
        self.loss_weight = loss_weight

    def forward(self, restored: Tensor, clean: Tensor, corrupted: Tensor, where: Tensor | None = None) -> Tensor:
        """Scalar loss: the mean over the images of the errors of restored against clean images.

        Args:
            restored: (N, C, H, W).
            clean: (N, C, H, W).
            corrupted: (N, C, H, W).
            where: Mask (N, H, W) of the pixels that count within the region, True = counts; None for all.
        """
        error = self._error(restored, clean)
        if self.norm_patch_size is not None:
            clean_mean, deviation = patch_statistics(clean, self.norm_patch_size)
            pattern = (restored - patch_mean(restored, self.norm_patch_size)) / deviation
            error = self.pixel_weight * error + self._error(pattern, (clean - clean_mean) / deviation)
        if self.region == 'corrupted':
            changed = (corrupted != clean).any(dim=1)  # (N, H, W), True = corrupted
            where = changed if where is None else where & changed
        if where is None:
            return self.loss_weight * error.mean()
        # First the mean per image: then a batch's loss is the mean of its parts' losses, however it is split.
        return self.loss_weight * ((error * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1)).mean()

    def _error(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.pixel_loss(images, targets, reduction='none').mean(dim=1)  # (N, H, W)


def patch_statistics(images: Tensor, patch_size: int, min_deviation: float = 0.1) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch over its pixels and channels, as maps (N, 1, H, W).

    ``min_deviation`` is added to the standard deviation in quadrature, so that flat patches do not dominate.
    """
    mean = patch_mean(images, patch_size)
    variance = patch_mean(images.square(), patch_size) - mean.square()
    return mean, variance.clamp(min=0).add(min_deviation**2).sqrt()


def patch_mean(images: Tensor, patch_size: int) -> Tensor:
    """Mean of every patch of images (N, C, H, W) over its pixels and channels, as a map (N, 1, H, W).

    Raises:
        ValueError: The patch size does not divide the image size.
    """
    if images.shape[-1] % patch_size or images.shape[-2] % patch_size:
        raise ValueError(
            f'RestorationLoss: norm_patch_size {patch_size} does not divide the image size {tuple(images.shape[-2:])}'
        )
    means = F.avg_pool2d(images.mean(dim=1, keepdim=True), patch_size)
    return F.interpolate(means, scale_factor=patch_size, mode='nearest')
