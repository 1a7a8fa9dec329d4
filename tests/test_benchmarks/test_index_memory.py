"""Measuring the index of shards."""

from benchmarks.index_memory import name_of, rows_of_speed, simulate
from mmebm.datasets.packed.base import Rows
from mmebm.datasets.packed.shards import ShardIndex


def test_the_simulated_index_is_read_as_a_real_one(tmp_path):
    simulate(tmp_path / 'shards', 2000)
    rows = Rows(ShardIndex(str(tmp_path / 'shards')), has_labels=False)
    assert len(rows) == 2000
    assert rows[1999]['img_path'] == str(tmp_path / 'shards' / name_of(1999))
    assert rows.index.members['shard'][1000] == 700


def test_speed_is_measured_of_both(tmp_path):
    rows = rows_of_speed(tmp_path, images=2, rounds=1)
    assert [(row['what'], row['measured']) for row in rows] == [
        ('ImageFolder', 'reading'), ('ImageFolder', 'pipeline'), ('TarShards', 'reading'), ('TarShards', 'pipeline'),
    ]  # fmt: skip
    assert all(row['images_per_second_per_core'] > 0 for row in rows)
