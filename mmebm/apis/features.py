"""Features of one layer of a backbone, pooled or by position."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mmebm.error_text import first_few
from mmebm.evaluation.frozen_features import extract_feat, pooled_features, tokens_of_patches, width_of
from mmebm.models.patches import patch_grid

# Where backbones keep their blocks or stages, in order.
BLOCKS = ('layers', 'blocks', 'stages', 'timm_model.blocks', 'timm_model.stages')


def features_of(model: nn.Module, layer: int | str | None, pooled: bool) -> Callable[[Tensor], Tensor]:
    """A function from normalised images (N, C, H, W) to features (N, D), or (N, D, h, w) or (N, L, D) if not pooled.

    Args:
        model: A model with ``extract_feat``.
        layer: As in ``Restorer.features``.
        pooled: Likewise.

    Raises:
        ValueError: There is no such layer.
    """
    if layer is None and pooled:
        return lambda images: pooled_features(model, images)
    if layer is None:
        return lambda images: by_position(model, _last(extract_feat(model, images)), images)
    module = find_layer(model.backbone, layer)
    if not pooled:
        return lambda images: by_position(model, _output_of(module, model, images), images)
    return lambda images: _mean(by_position(model, _output_of(module, model, images), images))


def find_layer(backbone: nn.Module, layer: int | str) -> nn.Module:
    """A block by its number, or a module by its name within the backbone.

    Raises:
        ValueError: There is none; the message says which there are.
    """
    modules = dict(backbone.named_modules())
    if isinstance(layer, str):
        if layer in modules and layer:
            return modules[layer]
        raise ValueError(
            f'layer {layer!r} is none of the modules of {type(backbone).__name__}: {first_few(list(modules)[1:])}'
        )
    named = getattr(backbone, 'res_layers', None)  # ResNet's, by name
    blocks = [modules[name] for name in named] if named else next(
        (list(modules[name]) for name in BLOCKS if isinstance(modules.get(name), (nn.ModuleList, nn.Sequential))), []
    )  # fmt: skip
    if not -len(blocks) <= layer < len(blocks):
        raise ValueError(
            f'layer {layer} of {type(backbone).__name__}, which has {len(blocks)} blocks; the name of one of its '
            'modules works too'
        )
    return blocks[layer]


def by_position(model: nn.Module, features: Tensor, images: Tensor) -> Tensor:
    """Features without extra tokens: a map (N, D, h, w), or tokens (N, L, D) if these are no grid, float32."""
    features = features.float()
    if features.dim() == 4:
        width = width_of(model)
        is_last = width and features.shape[-1] == width != features.shape[1]
        return features.permute(0, 3, 1, 2) if is_last else features
    if features.dim() != 3:
        return features
    tokens = tokens_of_patches(model.backbone, features, images.shape[-2:])
    grid = patch_grid(tokens.shape[1], images.shape[-2:])
    is_map = grid is not None and math.prod(grid) == tokens.shape[1]
    return tokens.transpose(1, 2).unflatten(2, grid) if is_map else tokens


def _mean(features: Tensor) -> Tensor:
    """Mean (N, D) over the positions of a map (N, D, h, w) or tokens (N, L, D); of vectors, themselves."""
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.dim() == 3 else features


def _output_of(module: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        extract_feat(model, images)
    finally:
        handle.remove()
    if not outputs:
        raise ValueError(f'{type(module).__name__}: this layer is not used for the features')
    return _last(outputs[-1])


def _last(features: Any) -> Tensor:
    """The last map, or else the last tokens, or else the last vectors, among features in nested sequences."""
    tensors = _leaves(features)
    rank = max(tensor.dim() for tensor in tensors)
    return [tensor for tensor in tensors if tensor.dim() == rank][-1]


def _leaves(features: Any) -> list[Tensor]:
    if isinstance(features, (list, tuple)):
        return [leaf for inner in features for leaf in _leaves(inner)]
    return [features] if isinstance(features, Tensor) and features.is_floating_point() else []
