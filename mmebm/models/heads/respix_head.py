"""Corrupted image modelling by restoration: all pixels of the original from the corrupted image."""

from typing import Literal

from mmengine.model import BaseModule
from torch import Tensor

from mmebm.models.heads.grid_projection import GridProjection, check_size, check_width, last_map
from mmebm.models.losses.restoration_loss import PIXEL_LOSSES
from mmebm.models.losses.window_normalization import window_normalized, window_statistics
from mmebm.models.selfsup.corrupted_view import CorruptedView
from mmebm.option_check import check_positive, check_whole_numbers
from mmebm.pixels import PEAK
from mmebm.registry import MODELS


@MODELS.register_module()
class ResPixHead(BaseModule):
    """Predicts the pixels of the original image, normalised in a sliding window, by one linear layer.

    Args:
        in_channels: Width D of the backbone's last features.
        stride: Side of their positions in pixels.
        window: Side in pixels of the window whose mean and standard deviation normalise a pixel, channel by channel.
        kind: The error of a pixel.
        eps: Added to the variance of windows, of pixels of 0 to 1; the default is a deviation of 2.6 of 255 levels.
        image_channels: Channels C of the images.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: Unknown ``kind``, ``window`` is less than 2, or ``eps`` is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        window: int = 8,
        kind: Literal['smooth_l1', 'l2', 'l1'] = 'l2',
        eps: float = 1e-4,
        image_channels: int = 3,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Conv2d', std=0.02))
        if kind not in PIXEL_LOSSES:
            raise ValueError(f'ResPixHead: kind must be one of {list(PIXEL_LOSSES)}, not {kind!r}')
        check_whole_numbers('ResPixHead', 2, window=window)
        check_positive('ResPixHead', eps=eps)
        self.projection = GridProjection(in_channels, image_channels, stride, 1)
        self.pixel_loss = PIXEL_LOSSES[kind]
        self.window = window
        self.eps = eps

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Normalised pixels (N, C, H, W) from a backbone's features."""
        return self.projection(check_width(self, last_map(features))).float()

    def loss(self, output: Tensor, view: CorruptedView) -> dict[str, Tensor]:
        """Error of the normalised pixels, and the same relative to that of the corrupted image itself.

        Raises:
            ValueError: The output is of another size than the images, or these are smaller than half the window.
        """
        check_size(self, output, view.clean.shape[-2:], 'pixels')
        if self.window // 2 >= min(view.clean.shape[-2:]):
            raise ValueError(
                f'ResPixHead: images of {view.clean.shape[-2]} x {view.clean.shape[-1]} pixels are too small to be '
                f'continued by reflection to a window of {self.window}; lower model.head.window'
            )
        target, unchanged = self._normalized(view.clean), self._normalized(view.corrupted)
        loss = self.pixel_loss(output, target)
        initial = self.pixel_loss(unchanged, target)
        return dict(loss_respix=loss, objective_ratio=loss.detach() / initial.clamp(min=1e-12))

    def predict(self, output: Tensor, view: CorruptedView) -> dict[str, Tensor]:
        """``restored`` (N, C, H, W) in pixel units, normalised pixels with the statistics of the corrupted image."""
        mean, deviation = window_statistics(view.corrupted / PEAK, self.window, self.eps)
        return dict(restored=((output * deviation + mean) * PEAK).clamp(0, PEAK))

    def _normalized(self, pixels: Tensor) -> Tensor:
        return window_normalized(pixels / PEAK, self.window, self.eps)
