"""A plain vision transformer that can read a subset of an image's patches."""

import torch
from torch import Tensor

from mmebm.models.backbones.sincos_vit import SinCosViT
from mmebm.models.patches import gather_patches
from mmebm.registry import MODELS


@MODELS.register_module()
class PatchSubsetViT(SinCosViT):
    """mmpretrain's VisionTransformer that can read a subset of the patches, some of them without position embedding.

    Names and meaning of the weights are ``VisionTransformer``'s. As in MAE (arXiv 2111.06377), position embeddings are
    fixed sines and cosines.

    Args:
        **kwargs: The options of :class:`mmpretrain.models.VisionTransformer`.

    Raises:
        ValueError: Patches overlap, so that a visible patch would show parts of its masked neighbours.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        convolution = self.patch_embed.projection
        if convolution.kernel_size != convolution.stride:
            raise ValueError(
                f'PatchSubsetViT: patches of {convolution.kernel_size[0]} pixels, {convolution.stride[0]} apart, '
                'overlap and would show parts of masked neighbours; leave kernel_size out of patch_cfg'
            )
        self.pos_embed.requires_grad_(False)

    def forward(
        self, x: Tensor, visible: Tensor | None = None, position_dropped: Tensor | None = None
    ) -> tuple[Tensor, ...] | Tensor:
        """Features of images (N, C, H, W), or of some of their patches.

        Args:
            x: The images.
            visible: Indices (N, V) of visible patches, numbered row by row; None for whole images.
            position_dropped: Indices (N, P) of position-dropped patches, read without position embedding.

        Returns:
            With indices, the last features: tokens (N, extra + V + P, D), class and other extra tokens first, then in
            the order of the indices. Without indices, what ``VisionTransformer`` returns.
        """
        if visible is None:
            return super().forward(x)
        patches, _ = self.patch_embed(x)
        positions = self.pos_embed.expand(len(x), -1, -1)
        extra = self.num_extra_tokens
        tokens = [
            gather_patches(patches, visible) + gather_patches(positions[:, extra:], visible),
            gather_patches(patches, position_dropped),
        ]
        if self.cls_token is not None:
            tokens.insert(0, self.cls_token + positions[:, :extra])
        tokens = self.pre_norm(self.drop_after_pos(torch.cat(tokens, dim=1)))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.ln1(tokens) if self.final_norm else tokens
