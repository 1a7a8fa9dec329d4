"""What configs inherit from others that are for another purpose, and must not."""

from pathlib import Path

import pytest
from mmengine.config import Config

FOLDER = Path(__file__).parents[1] / 'configs'
CONFIGS = [path for path in sorted(FOLDER.rglob('*.py')) if '_base_' not in path.parts]
PACKAGES = {'ade20k': 'mmseg', 'coco': 'mmdet', 'input-energy_pspnet_r50_ade20k': 'mmseg'} | {
    'input-energy_faster-rcnn_r50_coco': 'mmdet'
}
# Total batches of several GPUs are those of the headers: test_downstream/test_total_batches.py.
ON_ONE_DEVICE = [
    path
    for path in CONFIGS
    if path.parent.name == 'peers'
    or path.stem.endswith(('_shapes', '_shapes-64px'))
    or 'vit-t' in path.stem
    and path.parent == FOLDER
]


@pytest.fixture(params=CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def cfg(request):
    package = PACKAGES.get(request.param.parent.name) or PACKAGES.get(request.param.stem)
    pytest.importorskip(f'{package or "mmpretrain"}.registry', exc_type=ImportError)
    return Config.fromfile(request.param)


def test_progress_is_shown(cfg):
    assert [hook.type for hook in cfg.custom_hooks].count('mmebm.ProgressHook') == 1


def test_more_than_the_last_checkpoint_is_kept(cfg):
    """Unless there is only one: with a single file, an interrupted write leaves none."""
    checkpoint = cfg.default_hooks.checkpoint
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    assert checkpoint.get('max_keep_ckpts', -1) != 1 or checkpoint.interval == length


def test_no_training_resumes_unasked(cfg):
    assert not cfg.get('resume')


@pytest.mark.parametrize('path', ON_ONE_DEVICE, ids=lambda path: path.stem)
def test_learning_rates_of_one_device_are_for_its_batch(path):
    """Else --auto-scale-lr and tools/plan.py would scale them for a base of a config for several GPUs."""
    cfg = Config.fromfile(path)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == 1
