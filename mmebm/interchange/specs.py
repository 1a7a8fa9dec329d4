"""Specs of mmpretrain's backbones, from which other libraries build the same network."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from mmebm.model_building import type_name


class UnsupportedError(ValueError):
    """A library has no such model."""


@dataclass(frozen=True)
class ViTSpec:
    """Spec of a ``VisionTransformer``. Sizes in pixels, images as (height, width)."""

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    image: tuple[int, int]
    channels: int
    eps: float
    qkv_bias: bool
    layer_scale: bool
    class_token: bool
    pre_norm: bool
    final_norm: bool
    overlapping: bool
    plain_ffn: bool

    @property
    def padded(self) -> bool:
        """Whether the image size is not a multiple of the patch size."""
        return any(side % self.patch for side in self.image)


@dataclass(frozen=True)
class SwinSpec:
    """Spec of a ``SwinTransformer``. ``small_maps``: some stage has padded maps no larger than a window."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    ratio: float
    patch: int
    image: tuple[int, int]
    channels: int
    eps: float
    qkv_bias: bool
    pads_small_maps: bool
    small_maps: bool
    absolute_positions: bool
    overlapping: bool

    @property
    def padded(self) -> bool:
        """Whether the image size is not a multiple of the patch size."""
        return any(side % self.patch for side in self.image)


@dataclass(frozen=True)
class ConvNeXtSpec:
    """Spec of a ``ConvNeXt``, V1, or V2 with ``grn``. ``linear``: pointwise convolutions are ``nn.Linear``."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    patch: int
    channels: int
    eps: float
    linear: bool
    layer_scale: bool
    grn: bool


@dataclass(frozen=True)
class ResNetSpec:
    """Spec of a ``ResNet``. ``width``: channels of the first stage's 3 x 3 convolutions."""

    depth: int
    depths: tuple[int, ...]
    width: int
    stem: int
    channels: int
    basic: bool
    plain: bool


def vit(backbone: nn.Module) -> ViTSpec:
    """The spec of a ``VisionTransformer``."""
    arch, layer, projection = backbone.arch_settings, backbone.layers[0], backbone.patch_embed.projection
    return ViTSpec(
        width=arch['embed_dims'],
        depth=arch['num_layers'],
        heads=arch['num_heads'],
        hidden=arch['feedforward_channels'],
        patch=projection.stride[0],
        image=_pair(backbone.img_size),
        channels=projection.in_channels,
        eps=layer.ln1.eps,
        qkv_bias=layer.attn.qkv.bias is not None,
        layer_scale=not isinstance(layer.attn.gamma1, nn.Identity),
        class_token=backbone.cls_token is not None,
        pre_norm=not isinstance(backbone.pre_norm, nn.Identity),
        final_norm=backbone.final_norm,
        overlapping=not _is_plain(projection),
        plain_ffn=type(layer.ffn).__name__ == 'FFN',
    )


def swin(backbone: nn.Module) -> SwinSpec:
    """The spec of a ``SwinTransformer``."""
    projection, block = backbone.patch_embed.projection, backbone.stages[0].blocks[0]
    image, window = _pair(backbone.patch_embed.init_input_size), block.attn.window_size
    smallest = min(image) / projection.stride[0] / 2 ** (len(backbone.depths) - 1)
    return SwinSpec(
        width=backbone.embed_dims,
        depths=tuple(backbone.depths),
        heads=tuple(backbone.num_heads),
        window=window,
        ratio=block.ffn.feedforward_channels / backbone.embed_dims,
        patch=projection.stride[0],
        image=image,
        channels=projection.in_channels,
        eps=block.norm1.eps,
        qkv_bias=block.attn.w_msa.qkv.bias is not None,
        pads_small_maps=block.attn.pad_small_map,
        small_maps=block.attn.pad_small_map and smallest <= window,
        absolute_positions=backbone.use_abs_pos_embed,
        overlapping=not _is_plain(projection),
    )


def convnext(backbone: nn.Module) -> ConvNeXtSpec:
    """The spec of a ``ConvNeXt``."""
    stem, block = backbone.downsample_layers[0][0], backbone.stages[0][0]
    return ConvNeXtSpec(
        depths=tuple(backbone.depths),
        widths=tuple(backbone.channels),
        patch=stem.stride[0],
        channels=stem.in_channels,
        eps=block.norm.eps,
        linear=block.linear_pw_conv,
        layer_scale=block.gamma is not None,
        grn=block.grn is not None,
    )


def resnet(backbone: nn.Module) -> ResNetSpec:
    """The spec of a ``ResNet``."""
    basic = backbone.depth < 50
    return ResNetSpec(
        depth=backbone.depth,
        depths=tuple(backbone.stage_blocks),
        width=backbone.base_channels,
        stem=backbone.stem_channels,
        channels=next(backbone.parameters()).shape[1],
        basic=basic,
        plain=backbone.num_stages == 4
        and tuple(backbone.strides) == (1, 2, 2, 2)
        and set(backbone.dilations) == {1}
        and backbone.norm_cfg['type'].endswith('BN')
        and (backbone.style == 'pytorch' or basic)
        and not (backbone.deep_stem or backbone.avg_down),
    )


READERS = {'VisionTransformer': vit, 'SwinTransformer': swin, 'ConvNeXt': convnext, 'ResNet': resnet}
SAME_NETWORK = {
    'SinCosViT': 'VisionTransformer',
    'PatchSubsetViT': 'VisionTransformer',
}  # they differ in initialisation


def kind_of(registered_type: str) -> str:
    """The type of a backbone as other libraries know it, without scope, from the type in its config."""
    name = type_name(registered_type)
    return SAME_NETWORK.get(name, name)


def refuse(library: str, kind: str, lacking: Mapping[str, bool]) -> None:
    """Reject a backbone that a library does not support.

    Args:
        library: Name of the library.
        kind: Type of the backbone.
        lacking: Properties that the library's model does not support, and whether the backbone has them.

    Raises:
        UnsupportedError: The backbone has any of them; the message lists all.
    """
    found = [name for name, applies in lacking.items() if applies]
    if found:
        raise UnsupportedError(
            f'{library} has no {kind} with {" and ".join(found)}, so this backbone cannot be exported to it; '
            'mmpretrain, mmseg, mmdet and onnx take any backbone'
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _is_plain(projection: nn.Conv2d) -> bool:
    """Whether patches are squares that tile the image."""
    (height, width) = projection.kernel_size
    return height == width and projection.stride == projection.kernel_size and set(projection.padding) == {0}
