"""mmpretrain's own scripts on shipped configs, as mmpretrain runs them."""

import inspect
import sys
import uuid

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image

from mmebm.config_files import find_config
from mmebm.launch.scripts import load_script


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name, *argv):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, argv)])
        load_script(name).main()

    return run


def test_a_visualizer_of_mmpretrains_configs(tmp_path):
    """`browse_dataset` hands all of its config on, the scope that is inherited with it too."""
    config = Config.fromfile(find_config('ebm_vit-b_in1k')).visualizer
    assert config.pop('_scope_') == 'mmpretrain'
    assert config.pop('type') == 'UniversalVisualizer'
    visualizer = UniversalVisualizer(**config, _scope_='mmpretrain', save_dir=str(tmp_path), name=uuid.uuid4().hex)
    (backend,) = visualizer._vis_backends.values()
    assert type(backend) is LocalVisBackend


@pytest.mark.parametrize('mode', ['original', pytest.param('concat', marks=pytest.mark.slow)])
def test_browse_dataset(run, tmp_path, mode):
    config = find_config('ebm_vit-t_shapes')
    run('visualization/browse_dataset', config, '--not-show', '-n', 1, '-m', mode, '-o', tmp_path)
    picture = np.asarray(Image.open(tmp_path / '0.jpg'))
    assert picture.shape[2] == 3 and picture.std() > 10


def test_the_function_that_browse_dataset_calls_without_a_renderer():
    from matplotlib._tight_bbox import adjust_bbox

    assert inspect.signature(adjust_bbox).parameters['renderer'].default is None


@pytest.mark.parametrize('name', ['ebm_vit-t_shapes', 'ebm-patches_vit-t_shapes-64px'])
def test_vis_scheduler(run, tmp_path, name):
    """Their hooks run, without images and without a model: seeds, energies, frozen features, progress."""
    run('visualization/vis_scheduler', find_config(name), '-d', 128, '--not-show', '-s', tmp_path / 'lr.png')
    assert np.asarray(Image.open(tmp_path / 'lr.png')).std() > 10


@pytest.mark.parametrize('hook', ['CleanBatchNormHook', 'PatchWhiteningHook', 'InputEnergyHook', 'NotLearningHook'])
def test_vis_scheduler_with_hooks_of_other_configs(run, tmp_path, hook):
    options = ", config='ebm_vit-b_in1k', checkpoint='none.pth'" if hook == 'InputEnergyHook' else ''
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{find_config('ebm_vit-t_shapes')}'\ncustom_hooks = [dict(type='mmebm.{hook}'{options})]\n"
    )
    run('visualization/vis_scheduler', 'mine.py', '-d', 64, '--not-show', '-s', tmp_path / 'lr.png')
    assert (tmp_path / 'lr.png').is_file()
