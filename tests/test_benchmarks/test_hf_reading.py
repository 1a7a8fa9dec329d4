"""Measuring how fast HuggingFace data sets are read."""

import numpy as np

from benchmarks.hf_reading import data_sets, rows_of


def test_the_same_images_are_measured_in_each_kind_of_file(tmp_path):
    (tmp_path / 'made').mkdir()
    made = data_sets(tmp_path / 'made', 2)
    contents = [[dataset.data_list.content(i) for i in range(2)] for dataset in made.values()]
    assert len(made) == 4 and all(content == contents[0] for content in contents)
    rows = rows_of(tmp_path, images=2, rounds=1)
    assert [row['what'] for row in rows] == list(np.repeat(list(made), 2))
    assert all(row['images_per_second_per_core'] > 0 for row in rows)
