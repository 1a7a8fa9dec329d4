"""Names of weights in two libraries, one table for both directions."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, cat

from mmebm.checkpoint import check_fit

# Buffers that a model computes for itself.
DERIVED = ('relative_position_index', 'attn_mask')


class Layout(NamedTuple):
    """How another library lays out a weight.

    Attributes:
        to_theirs: From ours to theirs.
        to_ours: From theirs to ours, exactly.
    """

    to_theirs: Callable[[Tensor], Tensor]
    to_ours: Callable[[Tensor], Tensor]


IDENTITY = Layout(lambda weight: weight, lambda weight: weight)


class Rename(NamedTuple):
    """One line of a table.

    Attributes:
        ours: A module or a parameter of mmpretrain's; ``{}`` stands for one component of the name.
        theirs: The same in the other library, with as many ``{}``. Several: ours, cut into equal parts along its first
            axis.
        layout: How the tensors differ.
    """

    ours: str
    theirs: str | tuple[str, ...]
    layout: Layout = IDENTITY


class NameMap:
    """Translates state dicts between mmpretrain and another library, both ways and exactly.

    Args:
        renames: The table. The first line that fits a name is taken.
    """

    def __init__(self, renames: Iterable[tuple]):
        renames = [Rename(*rename) for rename in renames]
        self.renames = [r._replace(theirs=(r.theirs,)) if isinstance(r.theirs, str) else r for r in renames]

    def to_theirs(self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
        """Translate our weights.

        Args:
            state: Our weights.
            expected: Those of their model, for names, shapes and derived buffers.
            model: Its name, for errors.

        Raises:
            ValueError: The result is not what their model holds.
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
                result[key] = weight  # to be named as unexpected
        return _fitted(result, expected, 'The backbone', model)

    def to_ours(
        self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, model: str
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Translate their weights.

        Args:
            state: Their weights.
            expected: Those of our backbone, for names, shapes and derived buffers.
            source: Where the weights come from, for errors.
            model: The name of our backbone, for errors.

        Returns:
            Our weights, and the names of theirs that the table does not know, such as those of a classifier.

        Raises:
            ValueError: The result is not what our backbone holds.
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
            if len(found) == count:  # else the name is missing, and check_fit says so
                result[name] = layout.to_ours(cat([found[i] for i in range(count)]) if count > 1 else found[0])
        return _fitted(result, expected, source, model), unknown


def _trained(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight for key, weight in state.items() if not key.endswith(DERIVED)}


def _translate(key: str, template: str, others: tuple[str, ...]) -> list[str]:
    """What the templates make of a name; nothing if it does not fit the first."""
    pattern = re.escape(template).replace(r'\{\}', r'(\w+)') + r'((?:\.\w+)?)'
    match = re.fullmatch(pattern, key)
    return [other.format(*match.groups()[:-1]) + match.groups()[-1] for other in others] if match else []


def _fitted(state: dict[str, Tensor], expected: Mapping[str, Tensor], source: str, model: str) -> dict[str, Tensor]:
    """The weights with axes of length one as expected, and with the expected model's own derived buffers."""
    for key, weight in state.items():
        if key in expected and _lengths(weight) == _lengths(expected[key]):
            state[key] = weight.reshape(expected[key].shape)
    check_fit(state, _trained(expected), source, model)
    derived = {key: buffer for key, buffer in expected.items() if key.endswith(DERIVED)}
    return state | derived


def _lengths(weight: Tensor) -> list[int]:
    return [length for length in weight.shape if length != 1]
