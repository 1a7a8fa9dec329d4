"""Export to and import from torchvision."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from mmebm.interchange.library import MERGED, Family, Library, call_text, no_such_model, output_of
from mmebm.interchange.name_map import NameMap
from mmebm.interchange.source import Source
from mmebm.interchange.specs import ConvNeXtSpec, ResNetSpec, SwinSpec, ViTSpec, refuse
from mmebm.interchange.timm_models import RESNET_NAMES

NAME = 'torchvision'


class Constructor(NamedTuple):
    """A call that builds a model of torchvision.

    Attributes:
        function: Function or class in ``torchvision.models``.
        arguments: Arguments of the call.
        head: Name of the model's classifier, which is left out.
    """

    function: str
    arguments: dict[str, Any]
    head: str


BLOCK = 'encoder.layers.encoder_layer_{}'
VIT_NAMES = NameMap(
    [
        ('cls_token', 'class_token'),
        ('pos_embed', 'encoder.pos_embedding'),
        ('patch_embed.projection', 'conv_proj'),
        ('layers.{}.ln1', f'{BLOCK}.ln_1'),
        ('layers.{}.attn.qkv.weight', f'{BLOCK}.self_attention.in_proj_weight'),
        ('layers.{}.attn.qkv.bias', f'{BLOCK}.self_attention.in_proj_bias'),
        ('layers.{}.attn.proj', f'{BLOCK}.self_attention.out_proj'),
        ('layers.{}.ln2', f'{BLOCK}.ln_2'),
        ('layers.{}.ffn.layers.0.0', f'{BLOCK}.mlp.0'),
        ('layers.{}.ffn.layers.1', f'{BLOCK}.mlp.3'),
        ('ln1', 'encoder.ln'),
    ]
)
SWIN_NAMES = NameMap(
    [
        ('patch_embed.projection', 'features.0.0'),
        ('patch_embed.norm', 'features.0.2'),
        *(
            rename
            for i in range(4)
            for rename in [
                (f'stages.{i}.blocks.{{}}.norm1', f'features.{2 * i + 1}.{{}}.norm1'),
                (f'stages.{i}.blocks.{{}}.attn.w_msa.{{}}', f'features.{2 * i + 1}.{{}}.attn.{{}}'),
                (f'stages.{i}.blocks.{{}}.norm2', f'features.{2 * i + 1}.{{}}.norm2'),
                (f'stages.{i}.blocks.{{}}.ffn.layers.0.0', f'features.{2 * i + 1}.{{}}.mlp.0'),
                (f'stages.{i}.blocks.{{}}.ffn.layers.1', f'features.{2 * i + 1}.{{}}.mlp.3'),
                (f'stages.{i}.downsample.{{}}', f'features.{2 * i + 2}.{{}}', MERGED),
            ]
        ),
        ('norm3', 'norm'),
    ]
)
CONVNEXT_NAMES = NameMap(
    [
        *(
            rename
            for i in range(4)
            for rename in [
                (f'downsample_layers.{i}.{{}}', f'features.{2 * i}.{{}}'),
                (f'stages.{i}.{{}}.depthwise_conv', f'features.{2 * i + 1}.{{}}.block.0'),
                (f'stages.{i}.{{}}.norm', f'features.{2 * i + 1}.{{}}.block.2'),
                (f'stages.{i}.{{}}.pointwise_conv1', f'features.{2 * i + 1}.{{}}.block.3'),
                (f'stages.{i}.{{}}.pointwise_conv2', f'features.{2 * i + 1}.{{}}.block.5'),
                (f'stages.{i}.{{}}.gamma', f'features.{2 * i + 1}.{{}}.layer_scale'),
            ]
        ),
        ('norm3', 'classifier.0'),
    ]
)

# Models with a function in torchvision; others are built from their class.
VITS = {
    (16, 768, 12, 12, 3072): 'vit_b_16',
    (32, 768, 12, 12, 3072): 'vit_b_32',
    (16, 1024, 24, 16, 4096): 'vit_l_16',
    (32, 1024, 24, 16, 4096): 'vit_l_32',
    (14, 1280, 32, 16, 5120): 'vit_h_14',
}
SWINS = {
    (4, 96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 4.0): 'swin_t',
    (4, 96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 4.0): 'swin_s',
    (4, 128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 4.0): 'swin_b',
}
CONVNEXTS = {
    ((3, 3, 9, 3), (96, 192, 384, 768)): 'convnext_tiny',
    ((3, 3, 27, 3), (96, 192, 384, 768)): 'convnext_small',
    ((3, 3, 27, 3), (128, 256, 512, 1024)): 'convnext_base',
    ((3, 3, 27, 3), (192, 384, 768, 1536)): 'convnext_large',
}


def vit_constructor(spec: ViTSpec) -> Constructor:
    """Call of ``vit_b_16`` or the like, or of ``VisionTransformer``."""
    height, width = spec.image
    refuse(
        NAME,
        'vision transformer',
        {
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            'layer scale': spec.layer_scale,
            'no class token': not spec.class_token,
            'a norm before the first block': spec.pre_norm,
            'no norm after the last block': not spec.final_norm,
            'no biases of queries, keys and values': not spec.qkv_bias,
            'a SwiGLU feed-forward network': not spec.plain_ffn,
            f'images of {spec.channels} channels': spec.channels != 3,
            f'images of {height} x {width} pixels': height != width,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-6,
        },
    )
    arch = (spec.patch, spec.width, spec.depth, spec.heads, spec.hidden)
    if arch in VITS:
        return Constructor(VITS[arch], dict(image_size=height), 'heads')
    arguments = dict(
        image_size=height,
        patch_size=spec.patch,
        num_layers=spec.depth,
        num_heads=spec.heads,
        hidden_dim=spec.width,
        mlp_dim=spec.hidden,
    )
    return Constructor('VisionTransformer', arguments, 'heads')


def swin_constructor(spec: SwinSpec) -> Constructor:
    """Call of ``swin_t`` or the like, or of ``SwinTransformer``."""
    refuse(
        NAME,
        'Swin transformer',
        {
            'absolute position embeddings': spec.absolute_positions,
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            'padded maps that are no larger than a window': spec.small_maps,
            'no biases of queries, keys and values': not spec.qkv_bias,
            f'images of {spec.channels} channels': spec.channels != 3,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-5,
        },
    )
    arch = (spec.patch, spec.width, spec.depths, spec.heads, spec.window, spec.ratio)
    if arch in SWINS:
        return Constructor(SWINS[arch], {}, 'head')
    arguments = dict(
        patch_size=[spec.patch] * 2,
        embed_dim=spec.width,
        depths=list(spec.depths),
        num_heads=list(spec.heads),
        window_size=[spec.window] * 2,
        mlp_ratio=spec.ratio,
    )
    return Constructor('SwinTransformer', arguments, 'head')


def convnext_constructor(spec: ConvNeXtSpec) -> Constructor:
    """Call of ``convnext_tiny`` or the like, or of ``ConvNeXt``."""
    refuse(
        NAME,
        'ConvNeXt',
        {
            'global response normalisation': spec.grn,
            'no layer scale': not spec.layer_scale,
            f'patches of {spec.patch} pixels': spec.patch != 4,
            f'images of {spec.channels} channels': spec.channels != 3,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-6,
        },
    )
    if (spec.depths, spec.widths) in CONVNEXTS:
        return Constructor(CONVNEXTS[spec.depths, spec.widths], {}, 'classifier.2')
    stages = zip(spec.widths, [*spec.widths[1:], None], spec.depths, strict=True)
    return Constructor('ConvNeXt', dict(block_setting=[CNBlockConfig(*stage) for stage in stages]), 'classifier.2')


def resnet_constructor(spec: ResNetSpec) -> Constructor:
    """Call of ``resnet50`` or the like."""
    refuse(
        NAME,
        'ResNet',
        {
            'such a stem, strides or norms': not spec.plain,
            'a first stage that is not 64 wide': (spec.stem, spec.width) != (64, 64),
            f'images of {spec.channels} channels': spec.channels != 3,
        },
    )
    return Constructor(f'resnet{spec.depth}', {}, 'fc')


FAMILIES = {
    'VisionTransformer': Family(VIT_NAMES, vit_constructor, lambda model, images: output_of(model, 'encoder', images)),
    'SwinTransformer': Family(SWIN_NAMES, swin_constructor, lambda model, images: output_of(model, 'permute', images)),
    'ConvNeXt': Family(
        CONVNEXT_NAMES, convnext_constructor, lambda model, images: model.classifier[0](model.features(images))
    ),
    'ResNet': Family(RESNET_NAMES, resnet_constructor, lambda model, images: output_of(model, 'layer4', images)),
}


class Torchvision(Library):
    """``model.pth``, a state dict for ``load_state_dict`` of a model whose classifier is an ``Identity``."""

    name = NAME

    def family(self, source: Source) -> Family:
        """As in the base class."""
        if source.kind not in FAMILIES:
            raise no_such_model(self.name, source.kind, FAMILIES)
        return FAMILIES[source.kind]

    def build(self, constructor: Constructor) -> nn.Module:
        """As in the base class."""
        model = getattr(torchvision.models, constructor.function)(**constructor.arguments)
        model.set_submodule(constructor.head, nn.Identity())
        return model

    def save(self, model: nn.Module, constructor: Constructor, source: Source, folder: Path) -> tuple[str, str]:
        """As in the base class."""
        torch.save(model.state_dict(), folder / 'model.pth')
        blocks = 'from torchvision.models.convnext import CNBlockConfig\n' if constructor.function == 'ConvNeXt' else ''
        return (
            f'import torch\nimport torchvision\n{blocks}',
            f'model = {call_text(f"torchvision.models.{constructor.function}", constructor.arguments)}\n'
            f'model.set_submodule({constructor.head!r}, torch.nn.Identity())  # no classifier was trained\n'
            f"model.load_state_dict(torch.load(folder / 'model.pth', weights_only=True))\n",
        )
