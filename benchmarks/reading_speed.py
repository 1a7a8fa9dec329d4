"""Images per second of one core from data sets on disk: what ``index_memory`` and ``hf_reading`` measure alike."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def speed_rows(
    calls: Mapping[tuple[str, str], Callable[[int], Any]],
    jpegs: Path,
    rounds: int,
    order: Callable[[int], Iterable[int]],
) -> list[dict]:
    """A row for each call, in turn: the median of some rounds in time of the CPU, after one that fills the cache.

    Args:
        calls: What reads an image by its index, by the names of the data set and of what is measured.
        jpegs: Folder of the images' files.
        rounds: That count.
        order: The indices of a round, by its number.
    """
    sizes = [path.stat().st_size for path in jpegs.iterdir()]
    seconds: dict[tuple[str, str], list[float]] = {names: [] for names in calls}
    for round_ in range(rounds + 1):
        indices = list(order(round_))
        for names, call in calls.items():
            np.random.seed(round_)
            start = time.process_time()
            for i in indices:
                call(i)
            if round_:
                seconds[names].append(time.process_time() - start)
    return [
        dict(what=name, measured=what, images=len(sizes), rounds=rounds,
             mean_file_kib=round(statistics.mean(sizes) / 1024, 1),
             images_per_second_per_core=round(len(sizes) / statistics.median(values), 1))
        for (name, what), values in seconds.items()
    ]  # fmt: skip
