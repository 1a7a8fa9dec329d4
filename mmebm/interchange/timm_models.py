"""Export to and import from timm (https://github.com/huggingface/pytorch-image-models)."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmebm.interchange.library import MERGED, Family, Library, call_text, no_such_model, run_loader, write_loader
from mmebm.interchange.name_map import NameMap
from mmebm.interchange.source import Source, as_tokens
from mmebm.interchange.specs import ConvNeXtSpec, ResNetSpec, SwinSpec, ViTSpec, refuse

NAME = 'timm'

# Also the names in the original checkpoints of MAE and DINOv2.
VIT_NAMES = NameMap(
    [
        ('cls_token', 'cls_token'),
        ('pos_embed', 'pos_embed'),
        ('patch_embed.projection', 'patch_embed.proj'),
        ('pre_norm', 'norm_pre'),
        ('layers.{}.ln1', 'blocks.{}.norm1'),
        ('layers.{}.attn.qkv', 'blocks.{}.attn.qkv'),
        ('layers.{}.attn.proj', 'blocks.{}.attn.proj'),
        ('layers.{}.attn.gamma1.weight', 'blocks.{}.ls1.gamma'),
        ('layers.{}.ln2', 'blocks.{}.norm2'),
        ('layers.{}.ffn.layers.0.0', 'blocks.{}.mlp.fc1'),
        ('layers.{}.ffn.layers.1', 'blocks.{}.mlp.fc2'),
        ('layers.{}.ffn.gamma2.weight', 'blocks.{}.ls2.gamma'),
        ('ln1', 'norm'),
    ]
)
SWIN_NAMES = NameMap(
    [
        ('patch_embed.projection', 'patch_embed.proj'),
        ('patch_embed.norm', 'patch_embed.norm'),
        ('stages.{}.blocks.{}.norm1', 'layers.{}.blocks.{}.norm1'),
        ('stages.{}.blocks.{}.attn.w_msa.{}', 'layers.{}.blocks.{}.attn.{}'),
        ('stages.{}.blocks.{}.norm2', 'layers.{}.blocks.{}.norm2'),
        ('stages.{}.blocks.{}.ffn.layers.0.0', 'layers.{}.blocks.{}.mlp.fc1'),
        ('stages.{}.blocks.{}.ffn.layers.1', 'layers.{}.blocks.{}.mlp.fc2'),
        *((f'stages.{i}.downsample.{{}}', f'layers.{i + 1}.downsample.{{}}', MERGED) for i in range(3)),
        ('norm3', 'norm'),
    ]
)
CONVNEXT_NAMES = NameMap(
    [
        ('downsample_layers.0.{}', 'stem.{}'),
        ('downsample_layers.{}.{}', 'stages.{}.downsample.{}'),
        ('stages.{}.{}.depthwise_conv', 'stages.{}.blocks.{}.conv_dw'),
        ('stages.{}.{}.norm', 'stages.{}.blocks.{}.norm'),
        ('stages.{}.{}.pointwise_conv1', 'stages.{}.blocks.{}.mlp.fc1'),
        ('stages.{}.{}.grn.gamma', 'stages.{}.blocks.{}.mlp.grn.weight'),
        ('stages.{}.{}.grn.beta', 'stages.{}.blocks.{}.mlp.grn.bias'),
        ('stages.{}.{}.pointwise_conv2', 'stages.{}.blocks.{}.mlp.fc2'),
        ('stages.{}.{}.gamma', 'stages.{}.blocks.{}.gamma'),
        ('norm3', 'head.norm'),
    ]
)
RESNET_NAMES = NameMap(
    [
        ('conv1', 'conv1'),
        ('bn1', 'bn1'),
        ('layer{}.{}.{}', 'layer{}.{}.{}'),
        ('layer{}.{}.downsample.{}', 'layer{}.{}.downsample.{}'),
    ]
)

# timm builds a model from a name and the arguments that differ from it.
VIT_SIZES = {192: 'tiny', 384: 'small', 768: 'base', 1024: 'large'}
SWIN_SIZES = {(96, 18): 'small', (128, 18): 'base', (192, 18): 'large'}
CONVNEXT_SIZES = {(96, 27): 'small', (128, 27): 'base', (192, 27): 'large'}


def vit_constructor(spec: ViTSpec) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a ``vit_*``."""
    refuse(
        NAME,
        'vision transformer',
        {
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            'a SwiGLU feed-forward network under a free config': not spec.plain_ffn,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-6,
        },
    )
    ratio = spec.hidden / spec.width
    arguments = dict(
        img_size=spec.image,
        patch_size=spec.patch,
        in_chans=spec.channels,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=ratio if int(spec.width * ratio) == spec.hidden else math.nextafter(ratio, math.inf),
        qkv_bias=spec.qkv_bias,
        init_values=1.0 if spec.layer_scale else None,
        class_token=spec.class_token,
        pre_norm=spec.pre_norm,
        final_norm=spec.final_norm,
        global_pool='avg',  # of the patches, as features are pooled here
        fc_norm=False,
    )
    return f'vit_{VIT_SIZES.get(spec.width, "base")}_patch16_224', arguments


def swin_constructor(spec: SwinSpec) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a ``swin_*``."""
    refuse(
        NAME,
        'Swin transformer',
        {
            'absolute position embeddings': spec.absolute_positions,
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-5,
        },
    )
    arguments = dict(
        img_size=spec.image,
        patch_size=spec.patch,
        in_chans=spec.channels,
        embed_dim=spec.width,
        depths=spec.depths,
        num_heads=spec.heads,
        window_size=spec.window,
        always_partition=spec.pads_small_maps,
        mlp_ratio=spec.ratio,
        qkv_bias=spec.qkv_bias,
    )
    return f'swin_{SWIN_SIZES.get((spec.width, spec.depths[2]), "tiny")}_patch4_window7_224', arguments


def convnext_constructor(spec: ConvNeXtSpec) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a ``convnext_*`` or ``convnextv2_*``."""
    arguments = dict(
        in_chans=spec.channels,
        depths=spec.depths,
        dims=spec.widths,
        patch_size=spec.patch,
        ls_init_value=1.0 if spec.layer_scale else None,
        use_grn=spec.grn,
        conv_mlp=not spec.linear,
        norm_eps=spec.eps,
    )
    if not spec.layer_scale:  # timm drops arguments that are None, so only the name can say it
        return 'convnextv2_tiny', arguments
    return f'convnext_{CONVNEXT_SIZES.get((spec.widths[0], spec.depths[2]), "tiny")}', arguments


def resnet_constructor(spec: ResNetSpec) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a ``resnet*``."""
    refuse(NAME, 'ResNet', {'such a stem, strides or norms': not spec.plain, 'a stem not 64 wide': spec.stem != 64})
    return f'resnet{spec.depth}', dict(
        in_chans=spec.channels, channels=tuple(spec.width * 2**stage for stage in range(4))
    )


FAMILIES = {
    'VisionTransformer': Family(VIT_NAMES, vit_constructor, lambda model, images: model.forward_features(images)),
    'SwinTransformer': Family(
        SWIN_NAMES, swin_constructor, lambda model, images: model.forward_features(images).permute(0, 3, 1, 2)
    ),
    'ConvNeXt': Family(
        CONVNEXT_NAMES, convnext_constructor, lambda model, images: model.head.norm(model.forward_features(images))
    ),
    'ResNet': Family(RESNET_NAMES, resnet_constructor, lambda model, images: model.forward_features(images)),
}


class Timm(Library):
    """A folder with ``model.safetensors`` and ``config.json``, in timm's format for local folders and the hub."""

    name = NAME

    def family(self, source: Source) -> Family:
        """As in the base class."""
        if source.kind not in FAMILIES:
            raise no_such_model(self.name, source.kind, FAMILIES)
        return FAMILIES[source.kind]

    def build(self, constructor: tuple[str, dict[str, Any]]) -> nn.Module:
        """As in the base class."""
        import timm

        name, arguments = constructor
        return timm.create_model(name, num_classes=0, **arguments)

    def save(self, model: nn.Module, constructor: Any, source: Source, folder: Path) -> tuple[str, str]:
        """As in the base class."""
        from timm.models import save_for_hf

        pretrained_cfg = dict(input_size=(source.in_channels, *source.image_size))
        if source.mean and source.std:
            pretrained_cfg |= dict(mean=[x / 255 for x in source.mean], std=[x / 255 for x in source.std])
        model.pretrained_cfg.update(pretrained_cfg)
        save_for_hf(model, folder, model_config=dict(model_args=constructor[1]), safe_serialization=True)
        return 'import timm\n', "model = timm.create_model(f'local-dir:{folder}', pretrained=True)\n"


class NativeTimm:
    """The timm model of a ``TIMMBackbone``."""

    def write(self, source: Source, folder: Path) -> None:
        """Write its weights, and a ``load.py`` that builds and loads it."""
        save_file(source.resized.timm_model.state_dict(), folder / 'model.safetensors')
        arguments = {key: value for key, value in source.cfg.items() if key not in ('type', 'in_channels')}
        call = call_text('timm.create_model', arguments | dict(in_chans=source.in_channels))
        write_loader(
            source,
            folder,
            'import timm\nfrom safetensors.torch import load_file\n',
            f'model = {call}\n'
            "if hasattr(model, 'reset_classifier'):\n    model.reset_classifier(0, '')\n"
            "model.load_state_dict(load_file(folder / 'model.safetensors'))\n",
        )

    @torch.no_grad()
    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, D) of the model as ``load.py`` loads it."""
        features = run_loader(folder)(images)
        return as_tokens(features[-1] if isinstance(features, (list, tuple)) else features)
