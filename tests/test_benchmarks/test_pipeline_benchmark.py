import json

import cv2
import numpy as np
import pytest

from benchmarks import pipeline


@pytest.fixture(autouse=True)
def threads():
    """The script sets OpenCV's number of threads."""
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


def test_rows_of_every_corruption(tmp_path, capsys):
    images, output = tmp_path / 'images', tmp_path / 'pipeline.json'
    images.mkdir()
    pipeline.write_jpegs(images, 3)
    pipeline.main(['--data-root', str(images), '--images', '2', '--rounds', '1', '--output', str(output),
                       '--gpu-images-per-second', '1e6'])  # fmt: skip
    rows = {row['variant']: row for row in json.loads(output.read_text())}
    assert {'mmpretrain-cv2', 'no corruption', 'mask', 'sort', 'sr', 'denoise', 'color', 'mix'} <= set(rows)
    for row in rows.values():
        assert 1 < row['images_per_second'] < 1e5
        speedup = row['images_per_second'] / rows['mmpretrain-cv2']['images_per_second']
        assert row['ratio'] == pytest.approx(speedup, rel=0.02)
        assert (row['image_size'], row['source']) == (224, str(images))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith('| denoise'))
    workers = int(line.split('|')[4])
    assert workers == pytest.approx(1e6 / rows['denoise']['images_per_second'], rel=0.01)


def test_generated_jpegs_are_like_those_of_imagenet(tmp_path):
    pipeline.write_jpegs(tmp_path, 8)
    files = sorted(tmp_path.iterdir())
    assert [cv2.imread(str(file)).shape for file in files] == [(375, 500, 3)] * 8
    assert 85 < np.mean([file.stat().st_size for file in files]) / 1024 < 130
