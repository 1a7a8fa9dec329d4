"""A row of the benchmark of the Restorer's throughput."""

import argparse

from tiny import save_ebm

from benchmarks.restorer_throughput import batches_of, measure, row, write_images
from mmebm.apis import Restorer


def test_both_compute_the_same_images(tmp_path):
    restorer = Restorer(save_ebm(tmp_path / 'epoch_1.pth')[0], batch_size=2)
    folder = tmp_path / 'images'
    folder.mkdir()
    write_images(folder, 5, 40)
    batches = batches_of(restorer, str(folder))
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]
    seconds = measure(restorer, str(folder), batches, rounds=2)
    assert {name: (len(ours), len(bare)) for name, (ours, bare) in seconds.items()} == dict(
        energy=(2, 2), features=(2, 2)
    )
    args = argparse.Namespace(config='tiny', images=100)
    found = row('energy', [(2.0, 3.0), (4.0, 3.0), (5.0, 6.0)], [(2.0, 1.5)], args)
    assert (found['restorer'], found['model'], found['ratio'], found['cpu_ratio']) == (25.0, 50.0, 0.5, 0.5)
