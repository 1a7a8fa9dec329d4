"""Memory of the index of tar shards beside that of a list of files, images per second from both, and start-up times.

    python -m benchmarks.index_memory

The index is simulated: 14 million members with names like ImageNet-22k's, in 1,400 shards without content. Eight
processes open it and read rows and names all over it; private memory is what they alone hold (``smaps_rollup``), above
what they held before. The list is that of mmengine, which ``ImageFolder`` keeps in each training process: measured in
one process for fewer images, and multiplied. Images per second are those of one core, from JPEGs made for the purpose,
for reading alone and for the pipeline of ``ebm-mask_vit-b_in1k``, in time of the CPU, files and shards in the cache of
the system. Writes ``results/index_memory.json``.
"""

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.datasets import BaseDataset

from benchmarks.output import RESULTS
from benchmarks.pipeline import CONFIGS, our_pipeline, write_jpegs
from benchmarks.reading_speed import speed_rows
from mmebm.datasets import ImageFolder, TarShards
from mmebm.datasets.packed.base import Rows
from mmebm.datasets.packed.packing import pack
from mmebm.datasets.packed.shards import FORMAT, MEMBER, ShardIndex
from mmebm.experiments.results import hardware, stamp, write_rows

MEMBERS, SHARDS, PROCESSES = 14_000_000, 1_400, 8
LISTED, FILES, READ = 1_000_000, 20_000, 200_000
IMAGES, ROUNDS = 96, 5


def name_of(number: int) -> str:
    """A path as in ImageNet-22k."""
    return f'n{number // 640:08d}/n{number // 640:08d}_{number % 640:05d}.JPEG'


def simulate(folder: Path, members: int) -> None:
    """Write an index of shards that hold nothing."""
    index = folder / 'index'
    index.mkdir(parents=True)
    for i in range(SHARDS):
        (folder / f'shard-{i:05d}.tar').touch()
    length = len(name_of(0))
    rows = np.lib.format.open_memmap(index / 'members.npy', 'w+', MEMBER, (members,))
    rows['shard'] = np.arange(members) * SHARDS // members
    rows['name_end'] = (np.arange(members) + 1) * length
    rows.flush()
    with (index / 'names.bin').open('wb') as names:
        for start in range(0, members, 100_000):
            names.write(''.join(map(name_of, range(start, min(start + 100_000, members)))).encode())
    shards = [(f'shard-{i:05d}.tar', 0) for i in range(SHARDS)]
    about = dict(format=FORMAT, images=members, name_bytes=members * length, classes=None, files_sha256=None)
    (index / 'about.json').write_text(json.dumps(about | dict(shards=shards)))


def private_mib() -> float:
    """What this process alone holds, in MiB."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024


def open_index(folder: str, seed: int, barrier: Any, results: Any) -> None:
    """Open an index, read all over it, and tell the private memory and the seconds to open it."""
    before, start = private_mib(), time.perf_counter()
    rows = Rows(ShardIndex(folder), has_labels=False)
    seconds = time.perf_counter() - start
    for place in np.random.default_rng(seed).integers(0, len(rows), READ):
        rows[int(place)]
    barrier.wait()  # pages that several processes have mapped are nobody's own
    memory = private_mib() - before
    barrier.wait()
    results.put((memory, seconds))


class Listed(BaseDataset):
    """A list of files, as mmengine's data sets keep it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(ann_file='')

    def load_data_list(self) -> list[dict]:
        """What ``ImageFolder`` knows of each image."""
        return [dict(img_path=f'data/imagenet22k/{name_of(i)}') for i in range(self.number)]


def list_files(number: int, results: Any) -> None:
    """Make a list, and tell the private memory and the seconds."""
    before, start = private_mib(), time.perf_counter()
    dataset = Listed(number)
    results.put((private_mib() - before, time.perf_counter() - start))
    del dataset


def forked(targets: list[tuple[Callable, tuple]]) -> list[tuple[float, float]]:
    """What functions tell that run at the same time in processes of their own."""
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    processes = [context.Process(target=target, args=(*args, results)) for target, args in targets]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def memory_rows(folder: Path, members: int) -> list[dict]:
    """Memory of both, and the time until they are there."""
    simulate(folder / 'simulated', members)
    barrier = multiprocessing.get_context('fork').Barrier(PROCESSES)
    found = forked([(open_index, (str(folder / 'simulated'), seed, barrier)) for seed in range(PROCESSES)])
    size = sum(path.stat().st_size for path in (folder / 'simulated/index').iterdir()) / 2**20
    index = dict(
        what='TarShards', images=members, processes=PROCESSES, simulated=True, rows_read_per_process=READ,
        private_mib_per_process=round(statistics.mean(memory for memory, _ in found), 1),
        private_mib_all=round(sum(memory for memory, _ in found), 1), mapped_mib_once=round(size, 1),
        seconds_to_open=round(statistics.median(seconds for _, seconds in found), 3),
    )  # fmt: skip
    listed = min(LISTED, members)
    ((memory, seconds),) = forked([(list_files, (listed,))])
    many = folder / 'many'
    for i in range(FILES):
        path = many / name_of(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    start = time.perf_counter()
    ImageFolder(str(many))
    listing = time.perf_counter() - start
    factor = members / listed
    rows = dict(
        what='ImageFolder', images=members, processes=PROCESSES, simulated=True,
        measured_images=listed, measured_mib=round(memory, 1), measured_seconds_of_list=round(seconds, 2),
        private_mib_per_process=round(memory * factor), private_mib_all=round(memory * factor * PROCESSES),
        measured_files=FILES, measured_seconds_to_open=round(listing, 2),
        seconds_to_open=round(listing * members / FILES),
    )  # fmt: skip
    return [index, rows]


def rows_of_speed(folder: Path, images: int, rounds: int) -> list[dict]:
    """Images per second of one core, from files and from shards in turn."""
    source = folder / 'jpegs'
    source.mkdir()
    write_jpegs(source, images)
    pack(source, folder / 'packed', images)
    pipeline = our_pipeline(CONFIGS['mask'])
    files, shards = ImageFolder(str(source), pipeline=pipeline), TarShards(str(folder / 'packed'), pipeline=pipeline)
    paths = [files.get_data_info(i)['img_path'] for i in range(images)]
    calls = {
        ('ImageFolder', 'reading'): lambda i: Path(paths[i]).read_bytes(),
        ('ImageFolder', 'pipeline'): files.__getitem__,
        ('TarShards', 'reading'): shards.data_list.content,
        ('TarShards', 'pipeline'): shards.__getitem__,
    }
    return speed_rows(calls, source, rounds, order=lambda round_: range(images))


def main() -> None:
    """Measure, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--members', type=int, default=MEMBERS, help='to simulate; default: %(default)s')
    parser.add_argument('--images', type=int, default=IMAGES, help='to read; default: %(default)s')
    parser.add_argument('--rounds', type=int, default=ROUNDS)
    parser.add_argument('--output', type=Path, default=RESULTS / 'index_memory.json')
    args = parser.parse_args()
    MMLogger.get_instance('index_memory', log_level=logging.WARNING)
    init_default_scope('mmpretrain')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        rows = [*memory_rows(Path(place), args.members), *rows_of_speed(Path(place), args.images, args.rounds)]
    about = dict(device=hardware(), **stamp())
    write_rows(args.output, [row | about for row in rows])
    for row in rows:
        print(row)


if __name__ == '__main__':
    main()
