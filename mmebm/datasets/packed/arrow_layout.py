"""Where a HuggingFace data set has its Arrow or Parquet files, and of which split each is."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmebm.datasets.listing import list_images
from mmebm.error_text import first_few

ENDINGS = ('.arrow', '.parquet')

# `train-00000-of-00005.parquet`, also with a hash behind, and `imagenet-train-00000-of-00005.arrow`.
_NUMBERED = re.compile(r'(?P<stem>(?:.*-)?(?P<split>[^-]+))-(?P<part>\d+)-of-(?P<total>\d+)')
_SPLITS = frozenset({'train', 'training', 'validation', 'valid', 'val', 'dev', 'test', 'testing'})


def find_files(folder: str, split: str) -> list[str]:
    """The files of a data set, in its order, relative to its folder.

    Args:
        folder: As ``save_to_disk`` of HuggingFace's ``datasets`` leaves it, or with Arrow or Parquet files at any
            depth, as on the hub and in that library's cache.
        split: Whose files to take; may be empty if there is only one.

    Raises:
        FileNotFoundError: There is no such folder, or no such file in it.
        ValueError: The split is unknown or not told, or a file that names others is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        kind = 'is a file; name its folder' if root.is_file() else 'is no folder; download or save the data set first'
        raise FileNotFoundError(f'HFImages: {folder!r} {kind}')
    if (root / 'dataset_dict.json').is_file():
        splits = _read(root / 'dataset_dict.json').get('splits')
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise ValueError(f'HFImages: {root / "dataset_dict.json"} is damaged: it names no splits; copy it again')
        chosen = _choose(splits, split, folder)
        return [f'{chosen}/{name}' for name in _saved(root / chosen, '')]
    return _saved(root, split) if (root / 'state.json').is_file() else _listed(folder, split)


def _saved(root: Path, split: str) -> list[str]:
    """What ``state.json`` names."""
    path = root / 'state.json'
    if not path.is_file():
        raise FileNotFoundError(f'HFImages: {path} is missing, which names the files of the data set; copy it again')
    state = _read(path)
    try:
        names = [Path(file['filename']) for file in state['_data_files']]
    except (KeyError, TypeError):
        names = []
    if not names:
        raise ValueError(f'HFImages: {path} is damaged: it names no files; copy it again')
    if any(name.name != str(name) for name in names):
        raise ValueError(f'HFImages: {path} names files in other folders ({first_few(names)})')
    if state.get('_indices_data_files'):
        raise ValueError(f'HFImages: {root} has its order in a file of indices; save it after `flatten_indices()`')
    if split not in ('', state.get('_split')):
        raise ValueError(f'HFImages: {str(root)!r} holds the split {state.get("_split")!r} alone, not {split!r}')
    return [str(name) for name in names]


def _listed(folder: str, split: str) -> list[str]:
    """What lies in the folder."""
    listing = list_images(folder, ENDINGS)
    if listing.skipped:
        raise ValueError(f'HFImages: in {folder!r} there are {listing.faults()}; copy or download them again')
    # Results that the library keeps of `map` and `filter`, beside the data.
    files = [path for path in listing.images if not Path(path).name.startswith('cache-')]
    if not files:
        raise FileNotFoundError(
            f'HFImages: no .arrow and no .parquet file in {folder!r}, the folder that `data_root` names. Found: '
            f'{listing}. Files of images are read by mmebm.ImageFolder, those of mmebm-pack by mmebm.TarShards'
        )
    splits: dict[str, list[str]] = {}
    for path in files:
        splits.setdefault(split_of(path), []).append(path)
    chosen = splits[_choose(splits, split, folder)]
    if len({Path(path).suffix.lower() for path in chosen}) > 1:
        raise ValueError(
            f'HFImages: {folder!r} holds Arrow and Parquet files ({first_few(chosen)}), perhaps the same images twice; '
            'name the folder of one kind'
        )
    _check_complete(folder, chosen)
    return chosen


def _check_complete(folder: str, files: Sequence[str]) -> None:
    """Check that each file is there once, and of files ``NAME-00001-of-00003`` all are."""
    places: dict[str, list[str]] = defaultdict(list)  # of what a file holds: a part of a whole, or what its name says
    parts: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path in map(Path, files):
        numbered = _NUMBERED.match(path.name)
        places[numbered[0] if numbered else path.name].append(str(path.parent))
        if numbered:
            parts[numbered['stem'], int(numbered['total'])].add(int(numbered['part']))
    for name, folders in places.items():
        if len(folders) > 1:
            raise ValueError(
                f'HFImages: {folder!r} holds {name} several times, perhaps in several configurations: '
                f'{first_few(sorted(folders))}; name the folder of one'
            )
    for (stem, total), found in parts.items():
        if missing := sorted({*range(total)} - found):
            raise ValueError(
                f'HFImages: {folder!r} lacks {len(missing)} of {total} files {stem}-*-of-{total:05}, the first of '
                f'number {missing[0]}; download them'
            )


def split_of(path: str) -> str:
    """The split that a file's name or folder tells, empty if none does.

    Args:
        path: Relative to the data set's folder.
    """
    numbered = _NUMBERED.match(Path(path).name)
    if numbered and numbered['split'] != 'data':
        return numbered['split']
    words = re.split(r'[^a-z]+', path.lower())
    return next((word for word in reversed(words) if word in _SPLITS), '')


def _choose(splits: Collection[str], split: str, folder: str) -> str:
    if split in splits:
        return split
    named = [name for name in splits if name]
    if split:
        advice = f'choose from {first_few(named)}' if named else 'its files do not tell any; leave it out'
        raise ValueError(f'HFImages: {folder!r} has no split={split!r}; {advice}')
    if len(splits) == 1:
        return next(iter(splits))
    if not splits:
        raise ValueError(f'HFImages: {folder!r} has no split')
    raise ValueError(f'HFImages: {folder!r} has several splits; set `split` to one of {first_few(named)}')


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'HFImages: {path} is damaged ({error}); copy it again') from error
    if not isinstance(content, dict):
        raise ValueError(f'HFImages: {path} is damaged; copy it again')
    return content
