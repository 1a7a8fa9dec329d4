"""Export to mmpretrain, mmseg and mmdet: the backbone, and the lines of a config that load it."""

import copy
import importlib
from pathlib import Path
from pprint import pformat
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmebm.interchange.library import docstring
from mmebm.interchange.source import FULL_OUTPUT, Source, as_tokens

CHECKPOINT = 'backbone.pth'
FRAGMENT = 'backbone.py'
PREFIX = 'backbone.'


class OpenMMLab:
    """A checkpoint, and a config that loads it by ``init_cfg``.

    Args:
        package: ``mmpretrain``, ``mmseg`` or ``mmdet``.
        is_dense: Whether heads of the package need a map of every stage.
    """

    def __init__(self, package: str, is_dense: bool):
        self.package = package
        self.is_dense = is_dense

    def write(self, source: Source, folder: Path) -> None:
        """Write both; the config names the checkpoint inside ``folder``."""
        state = source.resized.state_dict() | source.left_out
        state = {f'{PREFIX}{key}': value for key, value in state.items()}
        torch.save(dict(state_dict=state), folder / CHECKPOINT)
        backbone = source.cfg | (dense_outputs(source) if self.is_dense else last_map(source))
        checkpoint = str(folder / CHECKPOINT)
        token = 'CHECKPOINT'  # not the path, which pformat would break at its spaces
        init_cfg = dict(type='Pretrained', checkpoint=token, prefix=PREFIX)
        model = dict(backbone=dict(_delete_=True) | backbone | dict(init_cfg=init_cfg))
        if not self.is_dense and source.kind in FULL_OUTPUT:
            model |= classifier_parts(source)
        title = f'A pretrained backbone, to replace the one in a config of {self.package}.'
        text = docstring(title, source.note)
        fragment = pformat(model, width=110, sort_dicts=False).replace(repr(token), repr(checkpoint))
        (folder / FRAGMENT).write_text(f'{text}\n\nmodel = {fragment}\n')

    @torch.no_grad()
    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, D) of the backbone, built and loaded by the config in the package's scope."""
        importlib.import_module(f'{self.package}.models')
        cfg = dict(Config.fromfile(folder / FRAGMENT).model.backbone)
        cfg.pop('_delete_')
        with DefaultScope.overwrite_default_scope(self.package):
            registry = importlib.import_module(f'{self.package}.registry').MODELS
            backbone = registry.build(copy.deepcopy(cfg) | FULL_OUTPUT.get(source.kind, {}))
            backbone.init_weights()
        backbone.eval()
        return as_tokens(backbone(images)[-1])


def last_map(source: Source) -> dict[str, Any]:
    """Options for a backbone to return the map of its last features alone, as ``classifier_parts`` read it."""
    outputs = FULL_OUTPUT.get(source.kind, {})
    return outputs | dict(out_type='featmap') if source.kind == 'VisionTransformer' else outputs


@torch.no_grad()
def classifier_parts(source: Source) -> dict[str, Any]:
    """Neck and width of the head of a classifier by the mean of the last map, as in ``configs/finetune``."""
    features = source.features(torch.zeros(1, source.in_channels, *source.image_size))
    return dict(
        neck=[dict(type='GlobalAveragePooling')],  # a list replaces any neck of a config, and none
        head=dict(in_channels=features.shape[-1]),  # of a LinearClsHead or a VisionTransformerClsHead
    )


def dense_outputs(source: Source) -> dict[str, Any]:
    """Options for a backbone to return four maps, or all. Norms of earlier stages are new, to be trained."""
    if source.kind == 'VisionTransformer':
        depth = source.spec.depth
        last = {max(0, depth * quarter // 4 - 1) for quarter in range(1, 5)}
        return dict(out_type='featmap', out_indices=sorted(last))
    if source.kind == 'ConvNeXt':
        return dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
    return dict(out_indices=(0, 1, 2, 3)) if source.kind in FULL_OUTPUT else {}
