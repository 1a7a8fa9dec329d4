"""The backbone to export: read from a checkpoint, and built to return its complete last features."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmebm.checkpoint import Checkpoint, check_fit, model_config, part, read_checkpoint
from mmebm.interchange.specs import READERS, UnsupportedError, kind_of
from mmebm.model_building import build, complete_model_config
from mmebm.models.channels import given_channels
from mmebm.provenance import KEY

# The scopes of the backbones that are built from the config stored in a checkpoint.
KNOWN = {
    **dict.fromkeys(READERS, 'mmpretrain'),
    'TIMMBackbone': 'mmpretrain',
    'HuggingFaceBackbone': 'mmebm',
}

# Options for a backbone to return its last features, without pooling and complete.
FULL_OUTPUT = {
    'VisionTransformer': dict(out_type='raw', out_indices=-1),
    'SwinTransformer': dict(out_indices=(3,)),
    'ConvNeXt': dict(out_indices=-1, gap_before_final_norm=False),
    'ResNet': dict(out_indices=(3,)),
}

HAVE_IMAGE_SIZE = ('VisionTransformer', 'SwinTransformer')

# Norms of outputs other than the last, and of pooled ones.
OTHER_OUTPUTS = re.compile(r'norm[012]\.\w+|ln2\.\w+')

# In pixels, if neither the config nor the command line gives it.
IMAGE_SIZE = 224

# Notes for users of an exported backbone on the order of channels, unless the data preprocessor converted to RGB.
AS_LOADED = (
    'Channels, and mean and std with them, are in the order in which the training data set loaded them (to_rgb=False): '
    'BGR where OpenCV read the images, RGB in data sets such as CIFAR10.'
)
FROM_BGR = (
    'The backbone was trained on BGR images; its input channels were reversed in the export, so that it takes RGB.'
)


@dataclass(frozen=True)
class Source:
    """A trained backbone.

    Attributes:
        kind: Its type, without scope.
        cfg: Its config in pretraining, with scope and without the origin of its weights.
        trained: The backbone as trained, in evaluation mode.
        resized: The same with position embeddings for ``image_size``.
        image_size: (height, width) in pixels of images for the exported backbone.
        mean: Mean by which training images were normalised; 0 to 255, one per channel. None: not known.
        std: Likewise, the standard deviation.
        left_out: Weights of other outputs, which the last features do not depend on.
        to_rgb: Whether the data preprocessor converted images from BGR to RGB.
        provenance: What the checkpoint says of its training (``ProvenanceHook``), if it does.
        is_reversed: Whether ``resized``, ``mean`` and ``std`` have the channels in reverse order of training.
    """

    kind: str
    cfg: dict[str, Any]
    trained: nn.Module
    resized: nn.Module
    image_size: tuple[int, int]
    mean: list[float] | None
    std: list[float] | None
    left_out: dict[str, Tensor]
    to_rgb: bool
    is_reversed: bool = False
    provenance: Mapping[str, Any] | None = None

    @property
    def spec(self) -> Any:
        """Its spec, one of the classes in ``specs``."""
        return READERS[self.kind](self.resized)

    @property
    def in_channels(self) -> int:
        """Channels C of the images."""
        given = given_channels(self.cfg)
        return 3 if given is None else given[1]

    @property
    def note(self) -> str:
        """A note for users on the order of channels; empty if none is needed."""
        if self.is_reversed:
            return FROM_BGR
        return AS_LOADED if self.in_channels == 3 and not self.to_rgb else ''

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The last features (N, L, D) of normalised images (N, C, H, W), channels as in the exported model."""
        return as_tokens(self.trained(images.flip(1) if self.is_reversed else images)[-1])


def read_source(path: str | Path, config: Config | None = None, image_size: int | None = None) -> Source:
    """Read a pretraining checkpoint.

    Args:
        path: Path of the checkpoint.
        config: The config that it was trained with; None: the one stored in the checkpoint, which is read as data, and
            from which only known backbones are built.
        image_size: Image size in pixels to resize position embeddings for; None: as trained.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, does not fit its config, or its backbone cannot be resized.
    """
    checkpoint = read_checkpoint(path)
    model = model_config(checkpoint) if config is None else _model_of(config)
    cfg = backbone_config(model, checkpoint, is_trusted=config is not None)
    kind = kind_of(cfg['type'])
    state = part(checkpoint)
    trained = build(cfg | FULL_OUTPUT.get(kind, {}))
    others = [key for key in state if OTHER_OUTPUTS.fullmatch(key) and key not in trained.state_dict()]
    left_out = {key: state.pop(key) for key in others if kind in FULL_OUTPUT}
    origin = 'the backbone of the config in it' if config is None else f'the backbone of {config.filename}'
    check_fit(state, trained.state_dict(), str(path), origin)
    trained.load_state_dict(state)
    trained.float()

    own = cfg.get('config') or {}  # of transformers
    size = image_size or cfg.get('img_size') or own.get('image_size') or IMAGE_SIZE
    resized = trained
    if kind in HAVE_IMAGE_SIZE:
        cfg = cfg | dict(img_size=size)
        resized = build(cfg | FULL_OUTPUT[kind])
        load_resized(resized, trained.state_dict(), str(path))
    elif image_size is not None and kind not in FULL_OUTPUT:
        raise UnsupportedError(f'A {kind} cannot be resized; its own library can (leave out --image-size)')
    for backbone in (trained, resized):
        backbone.eval()  # not chained: some of mmpretrain's return None
    preprocessor = model.get('data_preprocessor') or {}
    return Source(
        kind=kind,
        cfg=cfg,
        trained=trained,
        resized=resized,
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        mean=_floats(preprocessor.get('mean')),
        std=_floats(preprocessor.get('std')),
        left_out=left_out,
        to_rgb=bool(preprocessor.get('to_rgb') or preprocessor.get('bgr_to_rgb')),
        provenance=checkpoint.meta.get(KEY),
    )


def load_resized(backbone: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Load weights that fit but for position embeddings, which mmpretrain resizes.

    Raises:
        ValueError: It cannot: it takes only those of square images.
    """
    try:
        backbone.load_state_dict(state)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(
            f'{path}: position embeddings for other images than square ones cannot be resized ({reason}); keep the '
            'image size that they were trained with'
        ) from error


def from_bgr(source: Source) -> Source:
    """A backbone trained on BGR images, converted to one that takes RGB.

    Raises:
        UnsupportedError: There is not exactly one convolution that reads the images.
        ValueError: The training images were not BGR.
    """
    if source.in_channels != 3:
        raise ValueError(f'--channels bgr: images of {source.in_channels} channels are not BGR; leave it out')
    if source.to_rgb:
        raise ValueError(
            '--channels bgr: the data preprocessor has converted BGR to RGB (to_rgb=True), so the network was not '
            'trained on BGR; leave it out'
        )
    resized = copy.deepcopy(source.resized)
    readers = [module for module in resized.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3]
    if len(readers) != 1:
        raise UnsupportedError(
            f'--channels bgr reverses the input of the one convolution that takes three channels, and this '
            f'{source.kind} has {len(readers)} of them; leave it out, and reverse the channels of images'
        )
    (reader,) = readers
    reader.weight.data = reader.weight.data.flip(1)
    mean, std = (values and values[::-1] for values in (source.mean, source.std))
    return replace(source, resized=resized, mean=mean, std=std, is_reversed=True)


def as_tokens(features: Tensor) -> Tensor:
    """Maps (N, D, H, W) as tokens (N, L, D); tokens are unchanged."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def _model_of(config: Config) -> dict[str, Any]:
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'The config {config.filename} has no model')
    return complete_model_config(config)


def backbone_config(model: dict, checkpoint: Checkpoint, is_trusted: bool) -> dict[str, Any]:
    """The backbone's config without options that load other weights; only of a known type if it is not trusted."""
    cfg = model.get('backbone')
    if not isinstance(cfg, dict) or not isinstance(cfg.get('type'), str):
        raise ValueError(f'The config for {checkpoint.path} has no model.backbone.type')
    cfg = _plain(cfg)
    cfg = {key: value for key, value in cfg.items() if key not in ('init_cfg', '_scope_', 'checkpoint_path')}
    if 'pretrained' in cfg:
        cfg['pretrained'] = False
    kind = kind_of(cfg['type'])
    if kind in KNOWN:
        return cfg | dict(type=f'{KNOWN[kind]}.{kind}') if _is_harmless(cfg) or is_trusted else _refuse(checkpoint)
    if is_trusted:
        return cfg
    raise ValueError(
        f'{checkpoint.path} says that its backbone is a {cfg["type"]}; from what a checkpoint says, only '
        f'{", ".join(KNOWN)} are built. Give the config that it was trained with (--config)'
    )


def _refuse(checkpoint: Checkpoint) -> dict:
    raise ValueError(
        f'The config in {checkpoint.path} names types within its backbone by their module, which is refused; give the '
        'config that it was trained with (--config)'
    )


def _is_harmless(cfg: Any, is_nested: bool = False) -> bool:
    """Whether no nested type names a module, from which mmengine would import any callable."""
    if isinstance(cfg, dict):
        has_module = is_nested and '.' in str(cfg.get('type', ''))
        return not has_module and all(_is_harmless(value, is_nested=True) for value in cfg.values())
    return not isinstance(cfg, (list, tuple)) or all(_is_harmless(value, is_nested=True) for value in cfg)


def _plain(cfg: Any) -> Any:
    """Plain dicts and lists, without the scopes that inheritance adds."""
    if isinstance(cfg, dict):
        return {key: _plain(value) for key, value in cfg.items() if key not in ('_scope_', '_delete_')}
    return type(cfg)(_plain(value) for value in cfg) if isinstance(cfg, (list, tuple)) else cfg


def _floats(values: Any) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
