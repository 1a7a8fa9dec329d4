"""Pixels normalised by the statistics of a window around each."""

import torch
import torch.nn.functional as F
from torch import Tensor


def window_statistics(images: Tensor, window: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (N, C, H, W) each, of the window around each pixel, channel by channel.

    In float32. Images are continued by reflection; a window of even size has one more pixel behind its own than before.

    Args:
        images: (N, C, H, W), of more pixels than half of the window on each side.
        window: Side of the window in pixels.
        eps: Added to the variance, so that flat windows do not become noise.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.float()
        offset = images.mean(dim=(-2, -1), keepdim=True)  # or the difference of squares would lose its digits
        before, behind = (window - 1) // 2, window // 2
        padded = F.pad(images - offset, (before, behind, before, behind), mode='reflect')
        mean = _window_mean(padded, window)
        variance = _window_mean(padded.square(), window) - mean.square()
        return mean + offset, (variance.clamp(min=0) + eps).sqrt()


def window_normalized(images: Tensor, window: int, eps: float) -> Tensor:
    """Images (N, C, H, W) minus the mean, over the standard deviation of ``window_statistics``, in float32."""
    mean, deviation = window_statistics(images, window, eps)
    return (images.float() - mean) / deviation


def _window_mean(images: Tensor, window: int) -> Tensor:
    """Means over windows, first along rows and then along columns, which takes fewer sums than both at once."""
    return F.avg_pool2d(F.avg_pool2d(images, (1, window), stride=1), (window, 1), stride=1)
