"""Multi-stage backbones for dense prediction, with exactly the parameters of the pretrained backbones.

With several ``out_indices``, mmpretrain's Swin and ConvNeXt add a norm per stage. Pretraining reads only the last
stage, so its checkpoints lack the other norms. Here these norms are a neck, so no key of the backbone is missing.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmpretrain.models.backbones import ConvNeXt, SwinTransformer
from mmpretrain.models.utils.norm import LayerNorm2d
from torch import Tensor, nn

from mmebm.registry import MODELS


class AllStages:
    """Makes a backbone with a norm after its last stage return all stages, the others not normalised."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        (last,) = self.out_indices
        for stage in range(last):
            self.add_module(f'norm{stage}', nn.Identity())
        self.out_indices = tuple(range(last + 1))


@MODELS.register_module()
class SwinStages(AllStages, SwinTransformer):
    """Swin that returns the maps (N, D, H, W) of all stages, only the last one normalised.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.SwinTransformer`, except ``out_indices``.
    """


@MODELS.register_module()
class ConvNeXtStages(AllStages, ConvNeXt):
    """ConvNeXt that returns the maps (N, D, H, W) of all stages, only the last one normalised.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.ConvNeXt`, except ``out_indices``. Without
            ``gap_before_final_norm=False`` the last stage is averaged to (N, D).
    """


@MODELS.register_module()
class StageNorms(BaseModule):
    """Neck of :class:`SwinStages` and others: layer normalisation over the channels of every stage but the last.

    Backbone and neck together compute the same as the backbone with a norm per stage.

    Args:
        in_channels: Width D of each stage except the last, in their order.
        eps: Added to the variance: 1e-5 in Swin, 1e-6 in ConvNeXt.
        init_cfg: As in mmengine's BaseModule.
    """

    def __init__(self, in_channels: Sequence[int], eps: float = 1e-5, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norms = nn.ModuleList(LayerNorm2d(width, eps=eps) for width in in_channels)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The normalised maps (N, D, H, W) of all stages, in their order.

        Raises:
            ValueError: The number of stages is not that of norms plus one.
        """
        *inner, last = stages
        if len(inner) != len(self.norms):
            raise ValueError(
                f'StageNorms: got {len(stages)} stages; in_channels names {len(self.norms)}, but must name all except '
                'the last'
            )
        return (*(norm(stage) for norm, stage in zip(self.norms, inner, strict=True)), last)
