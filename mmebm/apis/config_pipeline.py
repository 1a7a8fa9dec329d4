"""What a config says of images that are not trained on: how they are prepared, and how corrupted."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from mmebm.model_building import type_name
from mmebm.registry import TRANSFORMS


def evaluation_pipeline(config: Config) -> list[dict]:
    """The steps by which a config's test images are prepared, else its validation images; none if it has neither."""
    for dataset in _datasets(config):
        if dataset.get('pipeline'):
            return [dict(step) for step in dataset['pipeline']]
    return []


def held_out_corruptions(config: Config) -> dict[str, dict]:
    """Configs of the corruptions in a config's test pipelines, by the name of their transform."""
    found: dict[str, dict] = {}
    for dataset in _datasets(config):
        for step in dataset.get('pipeline') or []:
            if type_name(step) == 'CorruptedPair':
                found.setdefault(_name_of(step['corruption']), step['corruption'])
    return found


def image_size_of(config: Config, model: nn.Module) -> tuple[int, int] | None:
    """Height and width that a model's backbone, or else its config, is for; None if neither says."""
    size = getattr(getattr(model, 'backbone', None), 'img_size', None) or _img_size(config)
    if isinstance(size, int):
        return size, size
    return None if size is None else (int(size[0]), int(size[1]))


def _img_size(config: Config) -> Any:
    return ((config.get('model') or {}).get('backbone') or {}).get('img_size')


def _datasets(config: Config) -> Iterator[Mapping]:
    """The data sets of test and validation, each before those that it is made of."""
    for section in ('test_dataloader', 'val_dataloader'):
        waiting = [(config.get(section) or {}).get('dataset') or {}]
        while waiting:
            dataset = waiting.pop(0)
            yield dataset
            inner = dataset.get('datasets') or dataset.get('dataset') or []
            waiting += [inner] if isinstance(inner, Mapping) else inner


def _name_of(corruption: Any) -> str:
    if isinstance(corruption, Mapping):
        kind = TRANSFORMS.get(corruption['type'])
        return getattr(kind, 'name', None) or type_name(corruption)
    return '+'.join(map(_name_of, corruption))
