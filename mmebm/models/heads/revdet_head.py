"""Corrupted image modelling by detection: which tokens of the corrupted image the generator has replaced."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmebm.models.heads.grid_projection import GridProjection, check_size, check_width, last_map
from mmebm.models.losses.detection import auroc, detection_accuracy
from mmebm.models.selfsup.corrupted_view import CorruptedView
from mmebm.pixels import PEAK
from mmebm.registry import MODELS


@MODELS.register_module()
class RevDetHead(BaseModule):
    """Predicts the logit of each token being replaced, by one linear layer.

    Args:
        in_channels: Width D of the backbone's last features.
        stride: Side of their positions in pixels. A position predicts the tokens within it, and several positions the
            token around them.
        token_stride: Side of a token in pixels.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: Neither stride divides the other.
    """

    def __init__(self, in_channels: int, stride: int, token_stride: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Conv2d', std=0.02))
        self.projection = GridProjection(in_channels, 1, stride, token_stride)
        self.token_stride = token_stride

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits (N, h, w), positive = replaced, from a backbone's features."""
        return self.projection(check_width(self, last_map(features))).squeeze(1).float()

    def loss(self, output: Tensor, view: CorruptedView) -> dict[str, Tensor]:
        """Binary cross-entropy over all tokens, accuracy and area under the ROC curve.

        Raises:
            ValueError: There is another number of logits than of tokens.
        """
        check_size(self, output, view.replaced.shape[-2:], 'tokens')
        return dict(
            loss_revdet=F.binary_cross_entropy_with_logits(output, view.replaced.float()),
            revdet_accuracy=detection_accuracy(output, view.replaced),
            revdet_auroc=auroc(output, view.replaced),
        )

    def predict(self, output: Tensor, view: CorruptedView) -> dict[str, Tensor]:
        """Logits, and maps to look at.

        Returns:
            ``replaced_logits`` (N, h, w), positive = replaced; and in pixel units, (N, 1, H, W): ``replaced_map``,
            white = replaced, and ``detected_map``, the predicted probability of that.
        """
        size = view.clean.shape[-2:]
        truth, detected = (
            F.interpolate(PEAK * cells.unsqueeze(1), size, mode='nearest')
            for cells in (view.replaced.float(), output.sigmoid())
        )
        return dict(replaced_logits=output, replaced_map=truth, detected_map=detected)
