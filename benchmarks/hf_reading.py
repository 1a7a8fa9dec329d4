"""Images per second of one core from a HuggingFace data set on disk, beside tar shards.

    python -m benchmarks.hf_reading

The same JPEGs, made for the purpose, from tar shards, from an Arrow file, and from Parquet files with groups of 100
rows and of one; in random order, reading alone and through the pipeline of ``ebm-mask_vit-b_in1k``, in time of the CPU,
all files in the cache of the system. Writes ``results/hf_reading.json``.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from benchmarks.output import RESULTS
from benchmarks.pipeline import CONFIGS, our_pipeline, write_jpegs
from benchmarks.reading_speed import speed_rows
from mmebm.datasets import HFImages, TarShards
from mmebm.datasets.packed.base import PackedImages
from mmebm.datasets.packed.packing import pack
from mmebm.experiments.results import hardware, stamp, write_rows

GROUPS = (100, 1)  # rows


def data_sets(folder: Path, images: int) -> dict[str, PackedImages]:
    """The same images in each kind of file."""
    (folder / 'jpegs').mkdir()
    write_jpegs(folder / 'jpegs', images)
    pack(folder / 'jpegs', folder / 'tar', images)
    struct = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    rows = [dict(bytes=path.read_bytes(), path=path.name) for path in sorted((folder / 'jpegs').iterdir())]
    table = pa.table(dict(image=pa.array(rows, struct)))
    (folder / 'arrow').mkdir()
    with pa.ipc.new_stream(folder / 'arrow' / 'images.arrow', table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)  # as HuggingFace's `datasets`
    pipeline = our_pipeline(CONFIGS['mask'])
    made: dict[str, PackedImages] = {'TarShards': TarShards(str(folder / 'tar'), pipeline=pipeline)}
    made['HFImages, Arrow'] = HFImages(str(folder / 'arrow'), pipeline=pipeline)
    for group in GROUPS:
        place = folder / f'parquet_{group}'
        place.mkdir()
        pq.write_table(table, place / 'images.parquet', row_group_size=group)
        made[f'HFImages, Parquet, groups of {group}'] = HFImages(str(place), pipeline=pipeline)
    return made


def rows_of(folder: Path, images: int, rounds: int) -> list[dict]:
    """Images per second of one core from each kind of file, in random order."""

    def shuffled(round_: int) -> list[int]:
        return np.random.default_rng(round_).permutation(images).tolist()

    calls = {}
    for name, dataset in data_sets(folder, images).items():
        calls |= {(name, 'reading'): dataset.data_list.content, (name, 'pipeline'): dataset.__getitem__}
    return speed_rows(calls, folder / 'jpegs', rounds, shuffled)


def main() -> None:
    """Measure, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=400, help='default: %(default)s')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--output', type=Path, default=RESULTS / 'hf_reading.json')
    args = parser.parse_args()
    MMLogger.get_instance('hf_reading', log_level=logging.WARNING)
    init_default_scope('mmpretrain')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        rows = rows_of(Path(place), args.images, args.rounds)
    about = dict(device=hardware(), **stamp())
    write_rows(args.output, [row | about for row in rows])
    for row in rows:
        print(row)


if __name__ == '__main__':
    main()
