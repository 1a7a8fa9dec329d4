import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image

from mmebm.engine.hooks.restoration_visualization_hook import RestorationVisualizationHook, side_by_side


def prediction(channels=3, **meta):
    """Clean, corrupted and restored images (C, 4, 6), each of one value."""
    sample = DataSample(metainfo=meta)
    for name, value in dict(clean=10, corrupted=100, restored=200).items():
        sample.set_field(torch.full((channels, 4, 6), float(value)), name)
    return sample


@pytest.fixture
def hook(tmp_path, monkeypatch):
    visualizer = UniversalVisualizer(name=str(tmp_path))
    monkeypatch.setattr(Visualizer, 'get_current_instance', lambda: visualizer)

    def make(**options):
        hook = RestorationVisualizationHook(**dict(enable=True, interval=1, out_dir=str(tmp_path / 'out')) | options)
        hook.before_test_epoch(None)
        return hook

    return make


@pytest.mark.parametrize('channels', [1, 3])
def test_side_by_side(channels):
    picture = side_by_side(prediction(channels))
    assert picture.shape == (4, 18, 3) and picture.dtype == np.uint8
    assert picture[0, :, 0].tolist() == [10] * 6 + [100] * 6 + [200] * 6


def test_what_a_prediction_lacks_is_left_out():
    sample = prediction()
    del sample.clean, sample.corrupted
    assert side_by_side(sample).tolist() == np.full((4, 6, 3), 200).tolist()


def test_files_are_numbered_over_all_batches(hook, tmp_path):
    """Images in different folders may have the same name, and the last batch may be smaller."""
    hook = hook(interval=2)
    for batch_idx, size in enumerate((3, 1)):
        batch = [prediction(img_path=f'{i}/a.jpg') for i in range(size)]
        hook.after_test_iter(None, batch_idx, dict(inputs=None), batch)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['0_a_0.png', '2_a_0.png']
    picture = np.asarray(Image.open(tmp_path / 'out' / '2_a_0.png'))
    assert abs(picture.reshape(-1, 3).mean() - 310 / 3) < 20


def test_without_files_the_corruption_is_named(hook, tmp_path):
    hook().after_test_iter(None, 0, dict(inputs=None), [prediction(corruption='mask'), prediction()])
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['0_mask_0.png', '1_image_0.png']


def test_draws_nothing_unless_enabled(hook, tmp_path):
    hook(enable=False).after_test_iter(None, 0, dict(inputs=None), [prediction()])
    assert not (tmp_path / 'out').exists()
