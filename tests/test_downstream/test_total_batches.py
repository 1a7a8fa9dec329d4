import re
from pathlib import Path

import pytest
from mmengine.config import Config

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = [path for name in ('finetune', 'linear', 'ade20k', 'coco') for path in sorted(FOLDER.glob(f'{name}/*.py'))]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_learning_rates_are_for_the_total_batch_of_the_header(path):
    """Which is what they are scaled from on other numbers of GPUs."""
    pytest.importorskip({'ade20k': 'mmseg', 'coco': 'mmdet'}.get(path.parent.name, 'mmpretrain'), exc_type=ImportError)
    cfg = Config.fromfile(path)
    hardware = re.search(r'Hardware: (\d+) (GPUs, (\d+) images each|CPU cores)', path.read_text())
    gpus, images = (int(hardware[1]), int(hardware[3])) if hardware[3] else (1, cfg.train_dataloader.batch_size)
    assert images == cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=gpus * images) or (
        cfg.auto_scale_lr == dict(base_batch_size=gpus * images)
    )
