"""Names of weights in two libraries: one table for both directions."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, cat

from mmebm.checkpoint import check_fit

# Buffers that a model computes itself.
DERIVED = ('relative_position_index', 'attn_mask')


class Layout(NamedTuple):
    """How another library lays out a weight.

    Attributes:
        to_theirs: From ours to theirs.
        to_ours: The exact inverse.
    """

    to_theirs: Callable[[Tensor], Tensor]
    to_ours: Callable[[Tensor], Tensor]


IDENTITY = Layout(lambda weight: weight, lambda weight: weight)


class Rename(NamedTuple):
    """One line of a table.

    Attributes:
        ours: A module or a parameter of mmpretrain's; ``{}`` stands for one component of the name.
        theirs: Its name in the other library, with as many ``{}``. Several names: ours, split into equal parts along
            its first axis.
        layout: How the tensors differ.
    """

    ours: str
    theirs: str | tuple[str, ...]
    layout: Layout = IDENTITY


class NameMap:
    """Translates state dicts between mmpretrain and another library, both ways and exactly.

    Args:
        renames: The table. The first line that matches a name applies.
    """

    def __init__(self, renames: Iterable[tuple]):
        renames = [Rename(*rename) for rename in renames]
        self.renames = [r._replace(theirs=(r.theirs,)) if isinstance(r.theirs, str) else r for r in renames]

    def to_theirs(self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
        """Translate our weights.

        Args:
            state: Our weights.
            expected: Weights of their model, for names, shapes and derived buffers.
            model: Name of their model, for errors.

        Raises:
            ValueError: Names or shapes of the result differ from those of their model.
        """
        result = {}
        for key, weight in _trained(state).items():
            for ours, theirs, layout in self.renames:
                if names := _translate(key, ours, theirs):
                    weight = layout.to_theirs(weight)
                    weights = weight.chunk(len(names)) if len(names) > 1 else [weight]
                    result |= zip(names, weights, strict=True)
                    break
            else:
                result[key] = weight  # to be listed as unexpected
        return _fitted(result, expected, 'The backbone', model)

    def to_ours(
        self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, model: str
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Translate their weights.

        Args:
            state: Their weights.
            expected: Weights of our backbone, for names, shapes and derived buffers.
            source: Origin of the weights, for errors.
            model: Name of our backbone, for errors.

        Returns:
            Our weights, and the names of theirs that the table does not know, such as those of a classifier.

        Raises:
            ValueError: Names or shapes of the result differ from those of our backbone.
        """
        result, unknown, parts = {}, [], {}
        for key, weight in _trained(state).items():
            for ours, theirs, layout in self.renames:
                found = [(name, i) for i, their in enumerate(theirs) for name in _translate(key, their, (ours,))]
                if found:
                    (name, i) = found[0]
                    parts.setdefault((name, layout, len(theirs)), {})[i] = weight
                    break
            else:
                unknown.append(key)
        for (name, layout, count), found in parts.items():
            if len(found) == count:  # else the name is missing, which check_fit reports
                result[name] = layout.to_ours(cat([found[i] for i in range(count)]) if count > 1 else found[0])
        return _fitted(result, expected, source, model), unknown


def _trained(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight for key, weight in state.items() if not key.endswith(DERIVED)}


def _translate(key: str, template: str, others: tuple[str, ...]) -> list[str]:
    """A name that matches ``template``, translated to the other templates; empty if it does not match."""
    pattern = re.escape(template).replace(r'\{\}', r'(\w+)') + r'((?:\.\w+)?)'
    match = re.fullmatch(pattern, key)
    return [other.format(*match.groups()[:-1]) + match.groups()[-1] for other in others] if match else []


def _fitted(state: dict[str, Tensor], expected: Mapping[str, Tensor], source: str, model: str) -> dict[str, Tensor]:
    """The weights with axes of length one as in ``expected``, and with its derived buffers."""
    for key, weight in state.items():
        if key in expected and _lengths(weight) == _lengths(expected[key]):
            state[key] = weight.reshape(expected[key].shape)
    check_fit(state, _trained(expected), source, model)
    derived = {key: buffer for key, buffer in expected.items() if key.endswith(DERIVED)}
    return state | derived


def _lengths(weight: Tensor) -> list[int]:
    return [length for length in weight.shape if length != 1]
