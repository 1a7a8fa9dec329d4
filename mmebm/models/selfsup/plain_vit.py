"""What the dropping of positions and of contents needs of a network: a plain ViT at the image size of its positions."""

from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmebm.ops.checkpointing import residual_blocks


def check_plain_vit(backbone: nn.Module, dropping: str) -> None:
    """Reject a network whose first block reads anything but patch embeddings plus absolute position embeddings.

    Blocks of other classes, those derived from mmpretrain's too, may tell positions by themselves: BEiT's by a bias,
    EVA-02's by rotation.

    Args:
        backbone: The network.
        dropping: The option that needs it, for the error.

    Raises:
        ValueError: It is no such ViT.
    """
    blocks, name = residual_blocks(backbone), type(backbone).__name__
    is_plain = blocks and all(type(block) is TransformerEncoderLayer for block in blocks)
    if not is_plain or getattr(backbone, 'pos_embed', None) is None:
        raise ValueError(
            f"{dropping}: {name} is not one of mmpretrain's plain ViTs with absolute position embeddings, such as "
            'mmebm.SinCosViT, whose tokens can be read without their position or their contents'
        )
    if backbone.drop_after_pos.p or not isinstance(backbone.pre_norm, nn.Identity):
        raise ValueError(
            f'{dropping}: the backbone changes its tokens between position embedding and first block, so that they '
            'cannot be made or changed there; leave out drop_rate and pre_norm'
        )


def check_image_size(backbone: nn.Module, images: Tensor, dropping: str) -> None:
    """Reject images (N, C, H, W) for which the network would resize its position embeddings.

    Raises:
        ValueError: They are of another size than ``img_size``.
    """
    expected, found = tuple(backbone.img_size), tuple(images.shape[-2:])
    if found != expected:
        raise ValueError(
            f'{dropping}: the images are {found[0]} x {found[1]} pixels, and the position embeddings of the backbone '
            f'are for {expected[0]} x {expected[1]}: train at its img_size'
        )
