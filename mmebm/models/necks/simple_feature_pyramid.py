"""Feature pyramid from the single scale of a plain vision transformer."""

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from mmebm.registry import MODELS

NORM = dict(type=LayerNorm2d, eps=1e-6)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """The neck of ViTDet (arXiv 2203.16527, section 3): each scale is computed from the last map only.

    Args:
        in_channels: Channels D of the backbone's last map; a multiple of 4.
        out_channels: Channels of every output.
        init_cfg: As in mmengine's BaseModule.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        half, quarter = in_channels // 2, in_channels // 4
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                    LayerNorm2d(half, eps=NORM['eps']),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                    *_to_output(quarter, out_channels),
                ),
                nn.Sequential(nn.ConvTranspose2d(in_channels, half, 2, stride=2), *_to_output(half, out_channels)),
                nn.Sequential(*_to_output(in_channels, out_channels)),
                nn.Sequential(nn.MaxPool2d(2), *_to_output(in_channels, out_channels)),
            ]
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (N, out_channels, ...) at 4, 2, 1, 1/2 and 1/4 times H and W of the last input map, (N, D, H, W)."""
        outputs = [level(maps[-1]) for level in self.levels]
        return (*outputs, F.max_pool2d(outputs[-1], kernel_size=1, stride=2))  # the last one for the RPN only


def _to_output(in_channels: int, out_channels: int) -> tuple[ConvModule, ConvModule]:
    return (
        ConvModule(in_channels, out_channels, 1, norm_cfg=NORM, act_cfg=None),
        ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=NORM, act_cfg=None),
    )
