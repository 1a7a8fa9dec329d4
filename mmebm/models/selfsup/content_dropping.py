"""Content dropping: the contents of some patches that the network has not read are restored from the others."""

import math

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmebm.models.losses.restoration_loss import patch_statistics
from mmebm.models.patches import gather_patches, patchify
from mmebm.models.selfsup.plain_vit import check_image_size, check_plain_vit
from mmebm.models.selfsup.training_pair import TrainingPair


class ContentDropping(nn.Module):
    """Takes the contents of R random patches of each image away, of those that are not read, and lets them be restored.

    A content is a clean patch's pattern c of C p p values: its pixels minus their mean, divided by their standard
    deviation. It starts at zero, a flat patch, and is restored together with the image: each adds |c|^2 / 2 - <c, Q g>
    to the energy, where g is the last feature of its token and Q a linear layer.

    Tokens of missing contents only read. They pass through the network's own blocks behind the others, with queries of
    their own; keys and values are those of the last features of the patches that were read, and their own. So they cost
    a pass of R tokens, and never stand among natural ones, whose features would adapt to them: in MAE (arXiv
    2111.06377, table 1c) mask tokens in the encoder cost 14 points of linear probing.

    For mmpretrain's plain ViTs (``check_plain_vit``) with ``out_type='raw'``.

    Args:
        backbone: The network.
        ratio: Share R / L of the patches.
        weight: Weight of the mean squared error of contents.

    Raises:
        ValueError: ``ratio`` is not between 0 and 1, ``weight`` is not positive, or the backbone is no such ViT.
    """

    def __init__(self, backbone: nn.Module, ratio: float, weight: float = 1.0) -> None:
        super().__init__()
        if not (0 < ratio < 1 and 0 < weight < math.inf):
            raise ValueError(
                'content_dropping: ratio must be between 0 and 1, and weight above 0; '
                f'not ratio={ratio}, weight={weight}'
            )
        check_plain_vit(backbone, 'content_dropping')
        convolution = backbone.patch_embed.projection
        if convolution.kernel_size != convolution.stride:
            raise ValueError(
                f'content_dropping: patches of {convolution.kernel_size[0]} pixels, {convolution.stride[0]} apart, '
                'overlap and would show parts of missing neighbours; leave kernel_size out of patch_cfg'
            )
        self.weight = weight
        self.patch_size = convolution.stride[0]
        self.num_patches = backbone.pos_embed.shape[1] - backbone.num_extra_tokens
        self.shape = max(1, round(ratio * self.num_patches)), convolution.weight[0].numel()  # R, C p p
        self.predict = nn.Linear(convolution.out_channels, self.shape[1])
        nn.init.trunc_normal_(self.predict.weight, std=0.02)
        nn.init.zeros_(self.predict.bias)
        self._network = (backbone,)  # a tuple, so that it is no submodule here; a copy of both holds the copy

    def check_images(self, images: Tensor) -> None:
        """See ``check_image_size``."""
        check_image_size(self._network[0], images, 'content_dropping')

    def choose(self, kept: Tensor, num_patches: int) -> Tensor:
        """Ascending indices (N, R) of patches that are not among those that are read.

        Args:
            kept: Indices (N, M) of the patches that are read.
            num_patches: L.

        Raises:
            ValueError: More than L - R are read.
        """
        number = self.shape[0]
        if num_patches - kept.shape[1] < number:
            raise ValueError(
                f'content_dropping: {kept.shape[1]} of {num_patches} patches are read, which leaves fewer than the '
                f'{number} of ratio; lower ratio, or the shares of token_dropping'
            )
        order = torch.rand(len(kept), num_patches, device=kept.device).scatter(1, kept, 2.0)
        return order.argsort(dim=1)[:, :number].sort(dim=1).values

    def read(self, contents: Tensor, missing: Tensor, memory: Tensor) -> Tensor:
        """Q g of each missing content, (N, R, C p p), in at least float32.

        Args:
            contents: (N, R, C p p).
            missing: Indices (N, R) of their patches.
            memory: The last features of the patches that are read, extra tokens included, (N, extra + M, D).
        """
        if memory.dim() != 3:
            raise ValueError(
                f'content_dropping: the backbone must return tokens (N, L, D), not {tuple(memory.shape)}: set '
                "out_type='raw'"
            )
        network = self._network[0]
        positions = network.pos_embed[:, network.num_extra_tokens :].expand(len(missing), -1, -1)
        convolution = network.patch_embed.projection
        tokens = F.linear(contents.to(memory.dtype), convolution.weight.flatten(1), convolution.bias)
        if network.patch_embed.norm is not None:
            tokens = network.patch_embed.norm(tokens)
        tokens = tokens + gather_patches(positions, missing)
        # Each token attends to the memory and to itself.
        own = torch.eye(missing.shape[1], dtype=torch.bool, device=missing.device)
        mask = torch.cat([own.new_ones(len(own), memory.shape[1]), own], dim=1)
        for layer in network.layers:
            tokens = _read_by(layer, tokens, memory, mask)
        predicted = self.predict(network.ln1(tokens) if network.final_norm else tokens)
        return predicted.to(torch.promote_types(predicted.dtype, torch.float32))

    def losses(self, contents: Tensor, pair: TrainingPair) -> dict[str, Tensor]:
        """Mean squared error of restored contents (N, R, C p p), times ``weight``, under ``loss_content``."""
        mean, deviation = patch_statistics(pair.clean, self.patch_size)
        patterns = gather_patches(patchify((pair.clean - mean) / deviation, self.patch_size), pair.missing)
        return dict(loss_content=self.weight * (contents - patterns).square().mean())


def _read_by(layer: TransformerEncoderLayer, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """Tokens (N, R, D) after a block in which they alone ask, and attend as ``mask`` (R, M + R) says."""
    attention = layer.attn
    width, weight, bias = attention.embed_dims, attention.qkv.weight, attention.qkv.bias
    asking = layer.ln1(tokens)
    sequence = torch.cat([layer.ln1(memory), asking], dim=1)
    query = F.linear(asking, weight[:width], None if bias is None else bias[:width])
    key, value = F.linear(sequence, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=2)
    query, key, value = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    dropout = attention.attn_drop if attention.training else 0.0
    read = attention.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    read = attention.proj(read.transpose(1, 2).flatten(2))
    tokens = tokens + attention.out_drop(attention.gamma1(attention.proj_drop(read)))
    return layer.ffn(layer.ln2(tokens), identity=tokens)
