"""Checks that options on the command line are arguments of the model, before it is built from them."""

import difflib
import inspect
from collections.abc import Iterable

from mmengine.config import Config

from mmebm.model_building import model_class
from mmebm.models.selfsup.base import BaseRestorer
from mmebm.training_step import TrainingStep

STEP_OPTIONS = [p.name for p in inspect.signature(TrainingStep).parameters.values() if p.kind is p.KEYWORD_ONLY]


def check_arguments(cfg: Config, options: Iterable[str]) -> None:
    """Reject options that no argument of a model of ours takes; other models are not checked.

    Args:
        cfg: The config.
        options: Dotted keys of the command line's ``--cfg-options``.

    Raises:
        ValueError: Names the option, and those that are close to it.
    """
    model = model_class(cfg)
    if not (inspect.isclass(model) and issubclass(model, BaseRestorer)):
        return
    parameters = inspect.signature(model).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = {f'model.{name}' for name in ('type', *parameters)}
    step_options = STEP_OPTIONS if 'training_step' in parameters else []
    step = {f'model.training_step.{name}' for name in step_options}
    for option in options:
        parts = option.split('.')
        is_step = parts[:2] == ['model', 'training_step'] and len(parts) > 2
        if len(parts) < 2 or parts[0] != 'model' or '.'.join(parts[: 2 + is_step]) in (step if is_step else known):
            continue
        moved = [f'model.training_step.{parts[1]}'] if parts[1] in step_options else []
        close = moved or difflib.get_close_matches(option, [*known, *step], n=3)
        hint = f' Did you mean {", ".join(close)}?' if close else ''
        raise ValueError(f'--cfg-options {option}: {model.__name__} has no such argument.{hint}')
