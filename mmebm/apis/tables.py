"""Results of many images as files: tables by pandas, features as they come."""

import json
import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmebm.apis.restorer import Restorer
from mmebm.apis.results import POLARITY, ImageEnergy, ImageFeatures
from mmebm.error_text import printable

TABLES = ('.csv', '.parquet')
FEATURES = ('.npy', '.parquet')

# Rows of a Parquet file that are written at a time.
ROWS = 1024


def pandas() -> Any:
    """The module.

    Raises:
        ImportError: It is not installed, or pyarrow is not, by which it writes Parquet.
    """
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'tables need {error.name}: pip install "mmebm[tables]", or pip install pandas pyarrow'
        ) from error
    return pandas


def check_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Check that a file has one of some endings, and that its folder is there, before any work is lost.

    Raises:
        ValueError: It has another.
        FileNotFoundError: There is no such folder.
    """
    if path.suffix not in endings:
        raise ValueError(f'--out {path}: the name must end in {" or ".join(endings)}')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'--out {path}: there is no folder "{path.parent}"')


def energy_table(energies: Iterable[ImageEnergy]) -> Any:
    """A data frame of images, the one of the highest energy first.

    Columns: ``path``; ``energy``; ``percentile``, the share in percent of the images that have at most this energy;
    and ``z``, the distance from the mean in standard deviations.
    """
    rows = [(one.source, one.energy) for one in energies]
    paths = pandas().Series([path for path, _ in rows], dtype=object)  # not Arrow's text, which is UTF-8
    frame = pandas().DataFrame(dict(path=paths, energy=[energy for _, energy in rows]))
    spread = frame.energy.std(ddof=0)
    frame['percentile'] = 100 * frame.energy.rank(method='max', pct=True)
    frame['z'] = (frame.energy - frame.energy.mean()) / spread if spread else 0.0
    return frame.sort_values('energy', ascending=False, ignore_index=True)


def write_table(frame: Any, path: Path) -> None:
    """Write a data frame with a column ``path`` as CSV or Parquet, by the ending."""
    if path.suffix == '.parquet':
        # Parquet's text is UTF-8, which a path need not be.
        frame.assign(path=frame.path.map(printable)).to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, errors='surrogateescape')


def write_about(path: Path, restorer: Restorer, **more: Any) -> Path:
    """Write beside a file which way the energy points, what the model was trained on, and what was skipped."""
    about = path.with_name(f'{path.name}.json')
    facts = dict(polarity=POLARITY, provenance=restorer.provenance, skipped=restorer.skipped, **more)
    about.write_text(json.dumps(facts, indent=2) + '\n')
    return about


class Written(NamedTuple):
    """What was written: how many vectors, their width, and the files."""

    images: int
    width: int
    files: list[Path]


def write_features(features: Iterable[ImageFeatures], path: Path) -> Written:
    """Write features as they come, so that memory holds a batch of them.

    Args:
        features: Of each image, (D,).
        path: Ending in ``.npy``: float32 (N, D), with the paths in a text file beside it, a line each; in
            ``.parquet``: columns ``path`` and ``features``.
    """
    return _write_npy(features, path) if path.suffix == '.npy' else _write_parquet(features, path)


def _write_npy(features: Iterable[ImageFeatures], path: Path) -> Written:
    names, part = path.with_suffix('.txt'), path.with_name(f'{path.name}.part')
    number, width = 0, 0
    with part.open('wb') as values, names.open('w', errors='surrogateescape') as lines:
        for number, (source, vector) in enumerate(features, start=1):  # noqa: B007
            width = len(vector)
            values.write(vector.float().numpy().astype('<f4').tobytes())
            lines.write(source + '\n')
    header = dict(descr='<f4', fortran_order=False, shape=(number, width))
    with path.open('wb') as file, part.open('rb') as values:
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(values, file)
    part.unlink()
    return Written(number, width, [path, names])


def _write_parquet(features: Iterable[ImageFeatures], path: Path) -> Written:
    pandas()
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([('path', pa.string()), ('features', pa.list_(pa.float32()))])
    rows, number, width = iter(features), 0, 0
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, ROWS)):
            number, width = number + len(chunk), len(chunk[0].features)
            columns = [[printable(one.source) for one in chunk], [one.features.float().numpy() for one in chunk]]
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))
    return Written(number, width, [path])
