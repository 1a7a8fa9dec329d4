"""mmpretrain's vision transformer, initialised with MAE's sin-cos position embeddings."""

from mmengine.model import initialize
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from torch import nn

from mmebm.checkpoint import loading_configs
from mmebm.registry import MODELS


class SinCosInit:
    """Mixin for mmpretrain's VisionTransformer and its subclasses: initialisation of MAE (arXiv 2111.06377).

    Position embeddings are initialised with sines and cosines of both coordinates, where mmpretrain draws them at
    random; the patch embedding is Xavier-uniform. Nothing is frozen; names and meaning of weights are unchanged.
    """

    def init_weights(self) -> None:
        """Initialise; weights loaded by an ``init_cfg`` of type ``Pretrained`` are kept."""
        super().init_weights()
        if loading := loading_configs(self.init_cfg):
            if not isinstance(self.init_cfg, dict):  # after loading a list's, mmpretrain has drawn positions again
                initialize(self, loading)
            return
        # Columns before rows: the function lists positions column by column, while patches are in row-major order.
        positions = build_2d_sincos_position_embedding(
            self.patch_resolution[::-1], self.embed_dims, cls_token=self.cls_token is not None
        )
        self.pos_embed.data.copy_(positions)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))


@MODELS.register_module()
class SinCosViT(SinCosInit, VisionTransformer):
    """mmpretrain's VisionTransformer with the initialisation of MAE.

    Masked patches are restored from their neighbours. With random position embeddings, attention first has to learn
    which patches these are.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.VisionTransformer`.
    """
