"""Where weights come from: on which images they were trained, for how long, and by which code."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

import mmebm
from mmebm.config_files import PACKAGE

REPOSITORY = PACKAGE.parent

# Distributions whose versions a checkpoint keeps beside those of mmebm, torch and Python.
DISTRIBUTIONS = ('onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmcv')

# The key in a checkpoint's metadata.
KEY = 'mmebm'


def commit() -> str:
    """The commit of mmebm's repository.

    A ``+`` behind it says that the working tree differed from it; it is ``unknown`` where mmebm is installed and not a
    checkout.
    """
    if not (REPOSITORY / '.git').exists():  # else git would find a repository further up
        return 'unknown'
    changed = _git('status', '--porcelain', '--untracked-files=no', '--', 'mmebm', 'configs', 'benchmarks/*.py')
    return _git('rev-parse', '--short', 'HEAD') + ('+' if changed else '')


def versions() -> dict[str, str]:
    """Versions of mmebm and of what it runs on."""
    found = dict(mmebm=mmebm.__version__, torch=str(torch.__version__), python=platform.python_version())
    for name in DISTRIBUTIONS:
        found[name.removeprefix('onedl-')] = importlib.metadata.version(name)
    return found


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What identifies the images of a data set.

    Args:
        dataset: Of mmengine, or a wrapper of several such.

    Returns:
        ``dataset``, its type; ``data``, the name of its folder, or None; ``images``, their number; and
        ``files_sha256``, a hash of the paths within that folder, sorted, a line each, or None where there are no files.
        It says whether two trainings had the same list of files, not whether these had the same contents.
    """
    root = str(getattr(dataset, 'data_root', '') or '')
    name = Path(root).resolve().name if root and '://' not in root else root
    return dict(dataset=type(dataset).__name__, data=name or None, images=len(dataset), files_sha256=_digest(dataset))


def digest_of(paths: Iterable[str]) -> str | None:
    """A hash of paths, whatever their order; None without any."""
    lines = sorted(paths)
    return hashlib.sha256('\n'.join(lines).encode('utf-8', 'surrogateescape')).hexdigest() if lines else None


def _digest(dataset: Dataset) -> str | None:
    """A hash of the paths of a data set's files, or of the hashes that its parts know without reading names."""
    parts = list(_parts(dataset))
    if any(getattr(part, 'files_sha256', None) for part in parts):
        digests = [getattr(part, 'files_sha256', None) or digest_of(_paths(part)) for part in parts]
        return digests[0] if len(parts) == 1 else digest_of(digest or '' for digest in digests)
    return digest_of(path for part in parts for path in _paths(part))


def _parts(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets in a wrapper, or the data set."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
        return
    for part in inner:
        yield from _parts(part)


def _paths(dataset: Dataset) -> Iterator[str]:
    """Paths of a data set's files, relative to its folder."""
    root = getattr(dataset, 'data_root', None)
    for i in range(len(dataset) if _has_files(dataset) else 0):
        path = dataset.get_data_info(i)['img_path']
        is_below = root and Path(path).is_relative_to(root)
        yield Path(path).relative_to(root).as_posix() if is_below else str(path)


def _has_files(dataset: Dataset) -> bool:
    return hasattr(dataset, 'get_data_info') and len(dataset) > 0 and 'img_path' in dataset.get_data_info(0)


def _git(*words: str) -> str:
    try:
        return subprocess.run(['git', *words], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    except OSError:  # there is no git
        return ''
