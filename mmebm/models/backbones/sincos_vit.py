"""A plain vision transformer that knows from the start which patches are neighbours."""

from mmengine.model import initialize
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from torch import nn

from mmebm.checkpoint import loading_configs
from mmebm.registry import MODELS


class SinCosInit:
    """Mixin for mmpretrain's VisionTransformer and its descendants: initialised as MAE's (arXiv 2111.06377).

    Positions begin as sines and cosines of both coordinates, where mmpretrain draws them at random, and the embedding
    of patches is Xavier-uniform. Nothing is frozen, and no weight gets another name or meaning.
    """

    def init_weights(self) -> None:
        """Initialise; a backbone that loads weights (``init_cfg`` of type ``Pretrained``) keeps them."""
        super().init_weights()
        if loading := loading_configs(self.init_cfg):
            if not isinstance(self.init_cfg, dict):  # mmpretrain has drawn positions anew, after it has loaded a list's
                initialize(self, loading)
            return
        # Columns before rows: the function lists positions column by column, and patches lie row by row.
        positions = build_2d_sincos_position_embedding(
            self.patch_resolution[::-1], self.embed_dims, cls_token=self.cls_token is not None
        )
        self.pos_embed.data.copy_(positions)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))


@MODELS.register_module()
class SinCosViT(SinCosInit, VisionTransformer):
    """mmpretrain's VisionTransformer, initialised as MAE's.

    Masked patches are restored from their neighbours. With positions drawn at random, attention has to find out first
    which these are.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.VisionTransformer`.
    """
