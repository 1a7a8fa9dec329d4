"""Corruptions that an inferencer applies: what users may name, made the same in every call."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from mmengine.registry import DefaultScope
from numpy.typing import NDArray

from mmebm.apis.sources import Prepared
from mmebm.corruptions import CorruptedPair, base
from mmebm.error_text import first_few
from mmebm.model_building import type_name
from mmebm.registry import TRANSFORMS

Corruption = str | dict | Sequence[dict]


def make_pair(corruption: Corruption, known: Mapping[str, dict], scope: str) -> CorruptedPair:
    """The transform that corrupts.

    Args:
        corruption: A name in ``known`` or of a transform; the config of a transform, or of a chain; or one of
            ``CorruptedPair``.
        known: Configs of corruptions by name.
        scope: Of mmengine's registries, in which transforms are looked for.

    Raises:
        KeyError: A transform is not registered.
        ValueError: There is no corruption of the name, or it refuses its options.
    """
    if isinstance(corruption, str):
        corruption = known.get(corruption) or dict(type=_transform(corruption, known))
    if isinstance(corruption, dict) and type_name(corruption) == 'CorruptedPair':
        options = {key: value for key, value in corruption.items() if key != 'type'}
    else:
        options = dict(corruption=corruption)
    with DefaultScope.overwrite_default_scope(scope):
        return CorruptedPair(**options)


def corrupted(one: Prepared, pair: CorruptedPair) -> NDArray:
    """An image (H, W, C) as ``pair`` corrupts it, the same in every call.

    Raises:
        ValueError: The corruption returned no image.
    """
    with _fixed_draws(one.index):
        results = pair(dict(img=one.image, sample_idx=one.index))
    if results is None:
        raise ValueError(f'{one.name}: the corruption returned no image')
    return results['img'][0]


@contextmanager
def _fixed_draws(index: int) -> Iterator[None]:
    """Let image ``index`` draw the same in every call, and leave the caller's random states untouched."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(index % 2**32)
    random.seed(index)
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _transform(name: str, known: Mapping[str, dict]) -> str:
    """The type of a transform by its name, with or without a scope, or by the short one of its results.

    Raises:
        ValueError: There is none.
    """
    kinds = [kind for kind in TRANSFORMS.module_dict.values() if issubclass(kind, base.Corruption)]
    short = {kind.name: f'mmebm.{kind.__name__}' for kind in kinds if hasattr(kind, 'name')}
    if name in short:
        return short[name]
    for kind in (f'mmebm.{name}', name):
        try:
            if TRANSFORMS.get(kind) is not None:
                return kind
        except RuntimeError:
            continue
    raise ValueError(
        f'corruption={name!r} is neither one of the config ({first_few(known) or "which has none"}) nor the name '
        f'({first_few(short)}) or type of a transform'
    )
