"""Names what in a model's forward pass keeps its energy from being differentiated twice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from mmebm.error_text import first_few

ADVICE = (
    'Between images and energy, use operators of torch alone, without .detach(), .data, .item(), torch.no_grad() or '
    'changes of tensors in place, or switch such parts off (RevVisionTransformer: no_custom_backward=True)'
)


def culprits(model: nn.Module, energy: Callable[[], Tensor]) -> str:
    """Autograd functions and layers that may be at fault, and what to do, in sentences.

    Args:
        model: The model; afterwards, its parameters do not require gradients.
        energy: Computes energies (N,) of images that require gradients.
    """
    functions, layers = _observe(model, energy)
    # Once more without the weights' gradients: of a detached input, a layer with weights makes an output that has one.
    model.requires_grad_(False)
    layers += _observe(model, energy)[1]
    found = []
    if functions:
        found.append(f'autograd functions with a backward pass of their own: {first_few(functions)}')
    if layers:  # the first of them; others may only follow from it
        found.append(f'a layer that passes on no gradient: {layers[0]}')
    return f'Found {"; ".join(found) or "no autograd function and no layer that is obviously at fault"}. {ADVICE}'


def _observe(model: nn.Module, energy: Callable[[], Tensor]) -> tuple[list[str], list[str]]:
    """Autograd functions, each with its layer, and layers whose input has a gradient and whose output has none."""
    owners: dict[Node, str] = {}
    cutting: list[str] = []

    def note(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs, outputs = _float_tensors((args, kwargs)), _float_tensors(output)
        # What an input comes from and no layer has computed, the layer around this one has.
        owners.update((node, name.rpartition('.')[0] or 'the model') for node in _new_nodes(inputs, owners))
        owners.update((node, name) for node in _new_nodes(outputs, owners))
        # Inside torch.no_grad() it is not this layer that passes on no gradient, but the one around it.
        is_cutting = torch.is_grad_enabled() and outputs and any(x.requires_grad for x in inputs)
        if is_cutting and not any(x.requires_grad for x in outputs):
            cutting.append(name)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(note, name), with_kwargs=True))
        energies = energy()
    owners.update((node, 'the model') for node in _new_nodes([energies], owners))
    functions = {
        f'{node._forward_cls.__module__}.{node._forward_cls.__qualname__} in {name}': None  # type: ignore[attr-defined]
        for node, name in owners.items()
        if isinstance(node, BackwardCFunction)
    }
    return [function for function in functions if not function.startswith('mmebm.')], cutting


def _float_tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _new_nodes(outputs: list[Tensor], known: dict[Node, str]) -> Iterator[Node]:
    """The nodes behind outputs that are not known, each once."""
    pending = [output.grad_fn for output in outputs]
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node is None or node in known or node in seen:
            continue
        seen.add(node)
        pending += [parent for parent, _ in node.next_functions]
        yield node
