"""To and from HuggingFace's transformers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmebm.interchange.library import MERGED, Family, Library, no_such_model, run_loader, write_loader
from mmebm.interchange.name_map import NameMap
from mmebm.interchange.source import Source, as_tokens
from mmebm.interchange.specs import ConvNeXt, ResNet, Swin, ViT, refuse

NAME = 'transformers'
QKV = ('query', 'key', 'value')

EMBEDDINGS = [
    ('cls_token', 'embeddings.cls_token'),
    ('pos_embed', 'embeddings.position_embeddings'),
    ('patch_embed.projection', 'embeddings.patch_embeddings.projection'),
    ('layers.{}.attn.qkv', tuple(f'encoder.layer.{{}}.attention.attention.{part}' for part in QKV)),
    ('layers.{}.attn.proj', 'encoder.layer.{}.attention.output.dense'),
    ('ln1', 'layernorm'),
]
VIT_NAMES = NameMap(
    [
        *EMBEDDINGS,
        ('layers.{}.ln1', 'encoder.layer.{}.layernorm_before'),
        ('layers.{}.ln2', 'encoder.layer.{}.layernorm_after'),
        ('layers.{}.ffn.layers.0.0', 'encoder.layer.{}.intermediate.dense'),
        ('layers.{}.ffn.layers.1', 'encoder.layer.{}.output.dense'),
    ]
)
DINOV2_NAMES = NameMap(
    [
        *EMBEDDINGS,
        ('layers.{}.ln1', 'encoder.layer.{}.norm1'),
        ('layers.{}.attn.gamma1.weight', 'encoder.layer.{}.layer_scale1.lambda1'),
        ('layers.{}.ln2', 'encoder.layer.{}.norm2'),
        ('layers.{}.ffn.layers.0.0', 'encoder.layer.{}.mlp.fc1'),
        ('layers.{}.ffn.layers.1', 'encoder.layer.{}.mlp.fc2'),
        ('layers.{}.ffn.gamma2.weight', 'encoder.layer.{}.layer_scale2.lambda1'),
    ]
)
BLOCK = 'encoder.layers.{}.blocks.{}'
SWIN_NAMES = NameMap(
    [
        ('patch_embed.projection', 'embeddings.patch_embeddings.projection'),
        ('patch_embed.norm', 'embeddings.norm'),
        ('stages.{}.blocks.{}.norm1', f'{BLOCK}.layernorm_before'),
        ('stages.{}.blocks.{}.attn.w_msa.qkv', tuple(f'{BLOCK}.attention.self.{part}' for part in QKV)),
        ('stages.{}.blocks.{}.attn.w_msa.proj', f'{BLOCK}.attention.output.dense'),
        ('stages.{}.blocks.{}.attn.w_msa.{}', f'{BLOCK}.attention.self.{{}}'),
        ('stages.{}.blocks.{}.norm2', f'{BLOCK}.layernorm_after'),
        ('stages.{}.blocks.{}.ffn.layers.0.0', f'{BLOCK}.intermediate.dense'),
        ('stages.{}.blocks.{}.ffn.layers.1', f'{BLOCK}.output.dense'),
        ('stages.{}.downsample.{}', 'encoder.layers.{}.downsample.{}', MERGED),
        ('norm3', 'layernorm'),
    ]
)
LAYER = 'encoder.stages.{}.layers.{}'
CONVNEXT_NAMES = NameMap(
    [
        ('downsample_layers.0.0', 'embeddings.patch_embeddings'),
        ('downsample_layers.0.1', 'embeddings.layernorm'),
        ('downsample_layers.{}.{}', 'encoder.stages.{}.downsampling_layer.{}'),
        ('stages.{}.{}.depthwise_conv', f'{LAYER}.dwconv'),
        ('stages.{}.{}.norm', f'{LAYER}.layernorm'),
        ('stages.{}.{}.pointwise_conv1', f'{LAYER}.pwconv1'),
        ('stages.{}.{}.grn.gamma', f'{LAYER}.grn.weight'),
        ('stages.{}.{}.grn.beta', f'{LAYER}.grn.bias'),
        ('stages.{}.{}.pointwise_conv2', f'{LAYER}.pwconv2'),
        ('stages.{}.{}.gamma', f'{LAYER}.layer_scale_parameter'),
        ('norm3', 'layernorm'),
    ]
)
PARTS = (('conv', 'convolution'), ('bn', 'normalization'))
RESNET_NAMES = NameMap(
    [
        ('conv1', 'embedder.embedder.convolution'),
        ('bn1', 'embedder.embedder.normalization'),
        *(
            (f'layer{i + 1}.{{}}.{ours}{k + 1}', f'encoder.stages.{i}.layers.{{}}.layer.{k}.{theirs}')
            for i in range(4)
            for k in range(3)
            for ours, theirs in PARTS
        ),
        *(
            (f'layer{i + 1}.{{}}.downsample.{k}', f'encoder.stages.{i}.layers.{{}}.shortcut.{theirs}')
            for i in range(4)
            for k, (_, theirs) in enumerate(PARTS)
        ),
    ]
)


def vit_recipe(traits: ViT) -> dict[str, Any]:
    """The config of a ``ViTModel``, or of a ``Dinov2Model``, which has layer scale."""
    refuse(
        NAME,
        'vision transformer',
        {
            'overlapping patches': traits.overlapping,
            f'images that are no whole number of {traits.patch}-pixel patches': traits.padded,
            'no class token': not traits.class_token,
            'a norm before the first block': traits.pre_norm,
            'no norm after the last block': not traits.final_norm,
            'a SwiGLU feed-forward network under a free config': not traits.plain_ffn,
        },
    )
    config = dict(
        hidden_size=traits.width,
        num_hidden_layers=traits.depth,
        num_attention_heads=traits.heads,
        layer_norm_eps=traits.eps,
        image_size=list(traits.image) if len(set(traits.image)) > 1 else traits.image[0],
        patch_size=traits.patch,
        num_channels=traits.channels,
        qkv_bias=traits.qkv_bias,
    )
    if traits.layer_scale:
        return config | dict(model_type='dinov2', mlp_ratio=traits.hidden / traits.width, use_mask_token=False)
    return config | dict(model_type='vit', intermediate_size=traits.hidden)


def swin_recipe(traits: Swin) -> dict[str, Any]:
    """The config of a ``SwinModel``."""
    refuse(
        NAME,
        'Swin transformer',
        {
            'absolute position embeddings': traits.absolute_positions,
            'overlapping patches': traits.overlapping,
            f'images that are no whole number of {traits.patch}-pixel patches': traits.padded,
            'padded maps that are no larger than a window': traits.small_maps,
            f'norms of eps {traits.eps:g}': traits.eps != 1e-5,
        },
    )
    return dict(
        model_type='swin',
        image_size=list(traits.image) if len(set(traits.image)) > 1 else traits.image[0],
        patch_size=traits.patch,
        num_channels=traits.channels,
        embed_dim=traits.width,
        depths=list(traits.depths),
        num_heads=list(traits.heads),
        window_size=traits.window,
        mlp_ratio=traits.ratio,
        qkv_bias=traits.qkv_bias,
        layer_norm_eps=traits.eps,
    )


def convnext_recipe(traits: ConvNeXt) -> dict[str, Any]:
    """The config of a ``ConvNextModel`` or ``ConvNextV2Model``."""
    refuse(
        NAME,
        'ConvNeXt',
        {
            f'norms of eps {traits.eps:g}': traits.eps != 1e-6,
            'both layer scale and global response normalisation': traits.layer_scale and traits.grn,
        },
    )
    config = dict(
        model_type='convnextv2' if traits.grn else 'convnext',
        num_channels=traits.channels,
        patch_size=traits.patch,
        hidden_sizes=list(traits.widths),
        depths=list(traits.depths),
        layer_norm_eps=traits.eps,
    )
    return config if traits.grn else config | dict(layer_scale_init_value=1.0 if traits.layer_scale else 0.0)


def resnet_recipe(traits: ResNet) -> dict[str, Any]:
    """The config of a ``ResNetModel``."""
    refuse(NAME, 'ResNet', {'such a stem, strides or norms': not traits.plain})
    width = traits.width if traits.basic else 4 * traits.width
    return dict(
        model_type='resnet',
        num_channels=traits.channels,
        embedding_size=traits.stem,
        hidden_sizes=[width * 2**stage for stage in range(4)],
        depths=list(traits.depths),
        layer_type='basic' if traits.basic else 'bottleneck',
    )


def last_hidden_state(model: nn.Module, images: Tensor) -> Tensor:
    """The last features, tokens or map."""
    return model(images).last_hidden_state


def normalized_map(model: nn.Module, images: Tensor) -> Tensor:
    """The last map of a ConvNeXt, each position normalised; transformers' model normalises its mean alone."""
    return model.layernorm(model(images).last_hidden_state.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


FAMILIES = {
    'VisionTransformer': Family(VIT_NAMES, vit_recipe, last_hidden_state),
    'SwinTransformer': Family(SWIN_NAMES, swin_recipe, last_hidden_state),
    'ConvNeXt': Family(CONVNEXT_NAMES, convnext_recipe, normalized_map),
    'ResNet': Family(RESNET_NAMES, resnet_recipe, last_hidden_state),
}
DINOV2 = Family(DINOV2_NAMES, vit_recipe, last_hidden_state)


class HuggingFace(Library):
    """A folder that ``AutoModel.from_pretrained`` reads, with the images' normalisation."""

    name = NAME

    def family(self, source: Source) -> Family:
        """As in the base class."""
        if source.kind not in FAMILIES:
            raise no_such_model(self.name, source.kind, FAMILIES)
        has_scale = source.kind == 'VisionTransformer' and source.traits.layer_scale
        return DINOV2 if has_scale else FAMILIES[source.kind]

    def build(self, recipe: dict[str, Any]) -> nn.Module:
        """As in the base class."""
        from transformers import AutoConfig, AutoModel

        # ViTModel alone has a pooler with weights, which nothing would train.
        options = dict(add_pooling_layer=False) if recipe['model_type'] == 'vit' else {}
        return AutoModel.from_config(AutoConfig.for_model(**recipe), **options)

    def save(self, model: nn.Module, recipe: dict[str, Any], source: Source, folder: Path) -> tuple[str, str]:
        """As in the base class."""
        write_pretrained(model, source, folder)
        options = ', add_pooling_layer=False' if recipe['model_type'] == 'vit' else ''
        return 'from transformers import AutoModel\n', f'model = AutoModel.from_pretrained(folder{options})\n'


class HuggingFaceItself:
    """The model of a ``HuggingFaceBackbone``."""

    def write(self, source: Source, folder: Path) -> None:
        """Write it as ``save_pretrained`` does, and a ``load.py`` that loads it."""
        write_pretrained(source.resized.model, source, folder)
        code = 'model = AutoModel.from_pretrained(folder)\n'
        write_loader(source, folder, 'from transformers import AutoModel\n', code)

    @torch.no_grad()
    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, C) of the model as ``load.py`` loads it."""
        return as_tokens(last_hidden_state(run_loader(folder), images))


def write_pretrained(model: nn.Module, source: Source, folder: Path) -> None:
    """Write a model, and the normalisation of its images where that is known."""
    from transformers import ViTImageProcessor

    model.save_pretrained(folder)
    if source.mean and source.std:
        height, width = source.image_size
        ViTImageProcessor(
            size=dict(height=height, width=width),
            image_mean=[x / 255 for x in source.mean],
            image_std=[x / 255 for x in source.std],
        ).save_pretrained(folder)
