"""Runs a captured step again, and finds where its values stop being finite."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmebm.engine.faulty_steps.random_state import set_random_state
from mmebm.launch.checks.pretrained import forget_pretrained
from mmebm.model_building import build, complete_model_config, type_name


@dataclass
class Replay:
    """What a step did when it was run again.

    Attributes:
        losses: By name.
        inputs: Names of the model's inputs that are not finite.
        module: Name and type of the first module with an output that is not finite; empty if there is none.
        operator: What autograd's anomaly detection said of the first operator with such a gradient; empty if nothing.
        gradients: Names of parameters whose gradient is not finite.
        norm: Of all gradients.
    """

    losses: dict[str, float] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    module: str = ''
    operator: str = ''
    gradients: list[str] = field(default_factory=list)
    norm: float = float('nan')

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradients are finite."""
        values = torch.tensor([*self.losses.values(), self.norm])
        return bool(values.isfinite().all())


def replay(capture: dict[str, Any], config: Config, device: str) -> Replay:
    """Run the step of a capture, with autograd's anomaly detection and without compiling it.

    Args:
        capture: From ``read_capture``.
        config: Of the training; its model is built.
        device: Where to run.

    Raises:
        ValueError: The config has no model.
        RuntimeError: The weights are not those of the config's model.
    """
    if not isinstance(config.get('model'), dict):
        raise ValueError('The capture has no config of its model; give that of the training (--config)')
    model = _model(capture, config).to(device)
    found = Replay()
    model.train()
    set_random_state(capture['random'])
    with _watched(model, found), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # anomaly detection warns of its own slowness, and prints what it raises
        with _precision(config, device), torch.autograd.set_detect_anomaly(True, check_nan=True):
            data = model.data_preprocessor(capture['batch'], True)
            found.inputs = [name for name, value in _tensors(data, '') if not value.isfinite().all()]
            try:
                total, values = model.parse_losses(model._run_forward(data, mode='loss'))
                found.losses = {name: float(value) for name, value in values.items() if 'loss' in name}
                total.backward()
            except RuntimeError as error:
                if 'returned nan values' not in str(error):
                    raise
                found.operator = str(error)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found.gradients = [name for name, value in gradients.items() if not value.isfinite().all()]
    if gradients and not found.operator:
        found.norm = float(torch.nn.utils.get_total_norm(gradients.values()))
    return found


def _model(capture: dict[str, Any], config: Config) -> nn.Module:
    config = Config(config.to_dict())
    forget_pretrained(config)
    if 'training_step' in config.model:
        config.model.training_step = dict(config.model.training_step or {}, compile=False)
    parts = {key: value for key, value in complete_model_config(config).items() if value is not None}
    model = build(parts, config.get('default_scope'))
    model.load_state_dict(capture['state_dict'])
    if hasattr(model, '_is_first_batch'):
        model._is_first_batch = capture.get('is_first', False)
    return model


def _precision(config: Config, device: str) -> Any:
    wrapper = config.get('optim_wrapper') or {}
    if type_name(wrapper) != 'AmpOptimWrapper' or device == 'cpu':  # on a CPU, training does not use it either
        return nullcontext()
    dtype = wrapper.get('dtype')
    return torch.autocast(device, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)


@contextmanager
def _watched(model: nn.Module, found: Replay) -> Iterator[None]:
    """Context in which the first module with an output that is not finite is noted."""

    def note(name: str, module: nn.Module, output: Any) -> None:
        if not found.module and not all(value.isfinite().all() for _, value in _tensors(output, '')):
            found.module = f'{name} ({type(module).__name__})'

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
        for name, module in model.named_modules()
        if name and not name.startswith('data_preprocessor')  # of which the inputs tell
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(node: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, (dict, list, tuple)):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            yield from _tensors(child, f'{path}.{key}' if path else str(key))
