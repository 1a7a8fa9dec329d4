"""Checks that a config's model and its data preprocessor are for images of the same channels."""

import inspect

from mmengine.config import Config
from mmpretrain.models.selfsup import BaseSelfSupervisor

from mmebm.model_building import model_class
from mmebm.models.channels import check_channels


def check_channels_of(cfg: Config) -> None:
    """Check any model's config; see ``mmebm.models.channels.check_channels``.

    Raises:
        ValueError: They are not.
    """
    model = cfg.get('model') or {}
    place = 'model.data_preprocessor' if model.get('data_preprocessor') else 'data_preprocessor'
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    kind = model_class(cfg)
    swaps = inspect.isclass(kind) and issubclass(kind, BaseSelfSupervisor)
    check_channels(model, preprocessor, place, swaps)
