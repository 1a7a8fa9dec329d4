"""Imports weights of other libraries into mmpretrain's backbones, to start a pretraining from them."""

import re
from pathlib import Path
from typing import Any

import torch

from mmebm.checkpoint import read_checkpoint
from mmebm.error_text import first_few
from mmebm.interchange import hf_models, timm_models, torchvision_models
from mmebm.interchange.name_map import NameMap
from mmebm.interchange.source import FULL_OUTPUT, load_resized
from mmebm.interchange.specs import READERS, kind_of
from mmebm.model_building import build

TIMM = {kind: family.names for kind, family in timm_models.FAMILIES.items()}
HF = {kind: family.names for kind, family in hf_models.FAMILIES.items()}

# The naming schemes of weights, by origin and type of the backbone.
FORMATS: dict[str, dict[str, NameMap]] = {
    'timm': TIMM,
    'hf': HF,
    'torchvision': {kind: family.names for kind, family in torchvision_models.FAMILIES.items()},
    'mae': {'VisionTransformer': timm_models.VIT_NAMES},
    'dinov2': {'VisionTransformer': timm_models.VIT_NAMES},
}

# Weights that are not imported: classifiers, decoders, poolers, mask tokens.
NOT_THE_BACKBONE = re.compile(
    r'(heads?|head_dist|fc|classifier|pooler|decoder\w*|mask_token|embeddings\.mask_token)\b.*'
)

# Prefixes of all names, if a model is part of a larger one.
WRAPPERS = ('module.', 'vit.', 'dinov2.', 'swin.', 'convnext.', 'convnextv2.', 'resnet.', 'backbone.')


def import_weights(path: str | Path, format: str, backbone: dict[str, Any], out: str | Path) -> list[str]:
    """Write weights as a checkpoint for ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Args:
        path: Path of a state dict, a checkpoint that holds one, or a ``.safetensors`` file.
        format: One of ``FORMATS``, the naming scheme of the weights.
        backbone: Config of the backbone to be initialised. Position embeddings are resized to its image size.
        out: The file to write.

    Returns:
        Names of weights that were not imported: those of a classifier, decoder or the like.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, the format has no such backbone, or the weights are of another architecture
            or another shape of images.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f'{out} exists; name a new file (--out)')
    kind = kind_of(backbone['type'])
    if kind not in FORMATS[format]:
        raise ValueError(f'The format {format} is known for {", ".join(FORMATS[format])}, not for a {kind}')
    state = _unwrapped(read_checkpoint(path).state)
    model = build({key: value for key, value in backbone.items() if key != 'init_cfg'} | FULL_OUTPUT[kind])
    names = FORMATS[format][kind]
    if format == 'hf' and kind == 'VisionTransformer' and READERS[kind](model).layer_scale:
        names = hf_models.DINOV2_NAMES
    expected = model.state_dict()
    if 'pos_embed' in expected:  # may be of another length, which loading resizes
        theirs = next((value for key, value in state.items() if re.search(r'pos(ition)?_embed\w*$', key)), None)
        expected['pos_embed'] = expected['pos_embed'] if theirs is None else theirs
    ours, unknown = names.to_ours(state, expected, str(path), f"the config's {kind}")
    foreign = [key for key in unknown if not NOT_THE_BACKBONE.fullmatch(key)]
    if foreign:
        raise ValueError(
            f'{path} holds weights without a counterpart in a {kind} ({first_few(foreign)}); another --from, or '
            'another architecture?'
        )
    load_resized(model, ours, str(path))
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in model.state_dict().items()}), out)
    return unknown


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without the prefix that more than half of its names have, if there is one."""
    for prefix in WRAPPERS:
        inside = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        if 2 * len(inside) > len(state):
            return inside | {key: value for key, value in state.items() if not key.startswith(prefix)}
    return state
