"""Export to and import from HuggingFace's transformers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmebm.interchange.library import MERGED, Family, Library, no_such_model, run_loader, write_loader
from mmebm.interchange.name_map import NameMap
from mmebm.interchange.source import Source, as_tokens
from mmebm.interchange.specs import ConvNeXtSpec, ResNetSpec, SwinSpec, ViTSpec, refuse

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


def vit_constructor(spec: ViTSpec) -> dict[str, Any]:
    """The config of a ``ViTModel``, or of a ``Dinov2Model``, which has layer scale."""
    refuse(
        NAME,
        'vision transformer',
        {
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            'no class token': not spec.class_token,
            'a norm before the first block': spec.pre_norm,
            'no norm after the last block': not spec.final_norm,
            'a SwiGLU feed-forward network under a free config': not spec.plain_ffn,
        },
    )
    config = dict(
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        layer_norm_eps=spec.eps,
        image_size=list(spec.image) if len(set(spec.image)) > 1 else spec.image[0],
        patch_size=spec.patch,
        num_channels=spec.channels,
        qkv_bias=spec.qkv_bias,
    )
    if spec.layer_scale:
        return config | dict(model_type='dinov2', mlp_ratio=spec.hidden / spec.width, use_mask_token=False)
    return config | dict(model_type='vit', intermediate_size=spec.hidden)


def swin_constructor(spec: SwinSpec) -> dict[str, Any]:
    """The config of a ``SwinModel``."""
    refuse(
        NAME,
        'Swin transformer',
        {
            'absolute position embeddings': spec.absolute_positions,
            'overlapping patches': spec.overlapping,
            f'an image size that {spec.patch}-pixel patches do not divide': spec.padded,
            'padded maps that are no larger than a window': spec.small_maps,
            f'norms of eps {spec.eps:g}': spec.eps != 1e-5,
        },
    )
    return dict(
        model_type='swin',
        image_size=list(spec.image) if len(set(spec.image)) > 1 else spec.image[0],
        patch_size=spec.patch,
        num_channels=spec.channels,
        embed_dim=spec.width,
        depths=list(spec.depths),
        num_heads=list(spec.heads),
        window_size=spec.window,
        mlp_ratio=spec.ratio,
        qkv_bias=spec.qkv_bias,
        layer_norm_eps=spec.eps,
    )


def convnext_constructor(spec: ConvNeXtSpec) -> dict[str, Any]:
    """The config of a ``ConvNextModel`` or ``ConvNextV2Model``."""
    refuse(
        NAME,
        'ConvNeXt',
        {
            f'norms of eps {spec.eps:g}': spec.eps != 1e-6,
            'both layer scale and global response normalisation': spec.layer_scale and spec.grn,
        },
    )
    config = dict(
        model_type='convnextv2' if spec.grn else 'convnext',
        num_channels=spec.channels,
        patch_size=spec.patch,
        hidden_sizes=list(spec.widths),
        depths=list(spec.depths),
        layer_norm_eps=spec.eps,
    )
    return config if spec.grn else config | dict(layer_scale_init_value=1.0 if spec.layer_scale else 0.0)


def resnet_constructor(spec: ResNetSpec) -> dict[str, Any]:
    """The config of a ``ResNetModel``."""
    refuse(NAME, 'ResNet', {'such a stem, strides or norms': not spec.plain})
    width = spec.width if spec.basic else 4 * spec.width
    return dict(
        model_type='resnet',
        num_channels=spec.channels,
        embedding_size=spec.stem,
        hidden_sizes=[width * 2**stage for stage in range(4)],
        depths=list(spec.depths),
        layer_type='basic' if spec.basic else 'bottleneck',
    )


def last_hidden_state(model: nn.Module, images: Tensor) -> Tensor:
    """The last features, tokens (N, L, D) or a map (N, D, H, W)."""
    return model(images).last_hidden_state


def normalized_map(model: nn.Module, images: Tensor) -> Tensor:
    """The last map (N, D, H, W) of a ConvNeXt, normalised per position; transformers normalises only its mean."""
    return model.layernorm(model(images).last_hidden_state.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


FAMILIES = {
    'VisionTransformer': Family(VIT_NAMES, vit_constructor, last_hidden_state),
    'SwinTransformer': Family(SWIN_NAMES, swin_constructor, last_hidden_state),
    'ConvNeXt': Family(CONVNEXT_NAMES, convnext_constructor, normalized_map),
    'ResNet': Family(RESNET_NAMES, resnet_constructor, last_hidden_state),
}
DINOV2 = Family(DINOV2_NAMES, vit_constructor, last_hidden_state)


class HuggingFace(Library):
    """A folder that ``AutoModel.from_pretrained`` reads, with the images' normalisation."""

    name = NAME

    def family(self, source: Source) -> Family:
        """As in the base class."""
        if source.kind not in FAMILIES:
            raise no_such_model(self.name, source.kind, FAMILIES)
        has_scale = source.kind == 'VisionTransformer' and source.spec.layer_scale
        return DINOV2 if has_scale else FAMILIES[source.kind]

    def build(self, constructor: dict[str, Any]) -> nn.Module:
        """As in the base class."""
        from transformers import AutoConfig, AutoModel

        # Only ViTModel has a pooler with weights, which are never trained.
        options = dict(add_pooling_layer=False) if constructor['model_type'] == 'vit' else {}
        return AutoModel.from_config(AutoConfig.for_model(**constructor), **options)

    def save(self, model: nn.Module, constructor: dict[str, Any], source: Source, folder: Path) -> tuple[str, str]:
        """As in the base class."""
        write_pretrained(model, source, folder)
        options = ', add_pooling_layer=False' if constructor['model_type'] == 'vit' else ''
        return 'from transformers import AutoModel\n', f'model = AutoModel.from_pretrained(folder{options})\n'


class HuggingFaceItself:
    """The model of a ``HuggingFaceBackbone``."""

    def write(self, source: Source, folder: Path) -> None:
        """Write the model by ``save_pretrained``, and a ``load.py`` that loads it."""
        write_pretrained(source.resized.model, source, folder)
        code = 'model = AutoModel.from_pretrained(folder)\n'
        write_loader(source, folder, 'from transformers import AutoModel\n', code)

    @torch.no_grad()
    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, D) of the model as ``load.py`` loads it."""
        return as_tokens(last_hidden_state(run_loader(folder), images))


def write_pretrained(model: nn.Module, source: Source, folder: Path) -> None:
    """Write a model, and the normalisation of its images if it is known."""
    from transformers import ViTImageProcessor

    def per_channel(values: list[float]) -> list[float]:  # of one for all channels, too
        return [x / 255 for x in (values * source.in_channels if len(values) == 1 else values)]

    model.save_pretrained(folder)
    if source.mean and source.std:
        height, width = source.image_size
        ViTImageProcessor(
            size=dict(height=height, width=width),
            image_mean=per_channel(source.mean),
            image_std=per_channel(source.std),
        ).save_pretrained(folder)
