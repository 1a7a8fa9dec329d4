"""Unpickles files without executing code from them: tensors, plain containers, and what mmengine's runner adds."""

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmebm.error_text import first_few


class Discarded:
    """Placeholder for pickled objects that nothing needs: accepts any arguments and keeps nothing."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


class _History(HistoryBuffer):
    """mmengine's history of a logged value, of which only the values are taken from a file.

    A pickled one also brings the functions of its statistics, which all histories share.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = {name: state[name] for name in ('max_length', '_log_history', '_count_history')}
        super().__setstate__(kept)
        self.__class__ = HistoryBuffer  # type: ignore[assignment]


def _look_up(owner: Any, name: Any) -> Any:
    """What ``getattr`` is unpickled as: it finds nothing but the curves of a schedule of one cycle."""
    is_curve = owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear')
    return getattr(owner, name) if is_curve else Discarded()


# Names that are unpickled as something harmless. mmengine pickles `getattr`, which may look up anything, for functions
# of its histories and schedules; other trainings pickle their command line.
STAND_INS = {
    'argparse.Namespace': Discarded,
    'builtins.getattr': _look_up,
    'mmengine.config.config.ConfigDict': dict,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': OneCycleParamScheduler,
    'numpy.dtype': np.dtype,
    'numpy.ndarray': np.ndarray,
    **{
        f'numpy.{core}.multiarray.{name}': getattr(np._core.multiarray, name)
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    },
    'pathlib.PosixPath': Discarded,
    'pathlib.WindowsPath': Discarded,
}
NUMBERS = [type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdgFDSU']

# How torch names what it did not unpickle.
REFUSED = re.compile(r'(?:GLOBAL|function|class) <?([\w.]+)')


def unpickle(
    source: str | Path | IO[bytes], map_location: Any = 'cpu', also: Sequence[type] = (), is_mapped: bool = False
) -> Any:
    """The content of a file that ``torch.save`` has written.

    Tensors, plain containers, NumPy's numbers and arrays, and the histories that mmengine's runner saves are read. The
    names in ``STAND_INS`` become what stands there.

    Args:
        source: The file.
        map_location: As in :func:`torch.load`.
        also: Classes whose objects are read too, without calling them.
        is_mapped: Whether to leave the weights in the file until they are used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, was not written by torch, or pickles anything else, which could run code.
    """
    name = str(source) if isinstance(source, (str, Path)) else getattr(source, 'name', 'The file')
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise FileNotFoundError(f'No checkpoint "{source}"')
    mmap = is_mapped and zipfile.is_zipfile(source)  # files in the format before torch 1.6 cannot be mapped
    allowed = [*((value, key) for key, value in STAND_INS.items()), *NUMBERS, *also]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if named := REFUSED.search(str(error)):
            raise ValueError(
                f'{name} is refused: it pickles {_all_refused(source, named[1])}, and unpickling that can execute any '
                'code. Ask for a file with weights alone; if you trust its author, load it with '
                "torch.load(weights_only=False) and save dict(state_dict=...) of its weights, and of the config's text "
                'under meta'
            ) from error
        raise ValueError(f'{name} is truncated or no checkpoint (UnpicklingError)') from error
    except Exception as error:  # damaged files raise any
        reason = f'{type(error).__name__}: {error}'.partition('\n')[0].partition('. ')[0]
        raise ValueError(f'{name} is truncated or no checkpoint ({reason})') from error


def _all_refused(source: Any, first: str) -> str:
    """The names in a file that are refused, that which was met first in front."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(source)
    except Exception:  # files in the format before torch 1.6, and streams that are used up
        found = []
    known = {*STAND_INS, *(f'{kind.__module__}.{kind.__qualname__}' for kind in NUMBERS)}
    names = sorted({*found} - known, key=lambda name: (name != first, name))
    return first_few(names or [first])
