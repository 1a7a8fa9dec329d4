import re
from pathlib import Path

import pytest
from mmengine.config import Config
from optional import import_or_skip

FOLDER = Path(__file__).parents[2] / 'configs'
PATTERNS = ('finetune/*.py', 'linear/*.py', 'ade20k/*.py', 'coco/*.py', 'peers/finetune*.py')
CONFIGS = [path for pattern in PATTERNS for path in sorted(FOLDER.glob(pattern))]
PACKAGES = {'ade20k': 'mmseg.registry', 'coco': 'mmdet.registry'}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_learning_rates_are_for_the_total_batch_of_the_header(path):
    """Which is what `mmebm-evaluate` scales them from."""
    import_or_skip(PACKAGES.get(path.parent.name, 'mmpretrain.registry'))
    cfg = Config.fromfile(path)
    hardware = re.search(r'Hardware: (\d+) GPUs, (\d+) images each', path.read_text())
    batch = cfg.train_dataloader.batch_size
    gpus, images = map(int, hardware.groups()) if hardware else (1, batch)
    assert images == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert not cfg.auto_scale_lr.get('enable')
