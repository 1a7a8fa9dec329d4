"""What a user gets for wrong input: runs of mmebm-train on a folder of images, the model tiny, the rest as shipped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from PIL import Image
from tiny import FOLDER_CONFIG

from mmebm.commands.train import main
from mmebm.registry import HOOKS

CONFIG = f"""
{FOLDER_CONFIG}train_cfg = dict(max_epochs=2)
param_scheduler = None
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
"""
CROP, CORRUPTION = (f'train_dataloader.dataset.pipeline.{i}' for i in ('1.scale', '3.corruption'))


class PoisonHook(Hook):
    """Makes one weight nan before the second epoch."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.model.backbone.ln1.weight.data[0] = float('nan')


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the config and five sound images, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setitem(HOOKS.module_dict, 'PoisonHook', PoisonHook)
    (tmp_path / 'tiny.py').write_text(CONFIG + f'experiment_name = {str(tmp_path)!r}.replace("/", "_")\n')
    (tmp_path / 'images').mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / 'images' / f'{i}.jpg')


def train(*options, data_root='images', flags=()):
    main(['tiny.py', '--work-dir', 'out', *flags, '--cfg-options', f'data_root={data_root}', f'{CROP}=32', *options])


def log():
    return ''.join(path.read_text() for path in sorted(Path('out').glob('*/*.log')))


def test_sound_input_trains():
    train()
    assert sorted(path.name for path in Path('out').glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']
    assert 'WARNING - Skipped' not in log()


def test_a_missing_folder():
    with pytest.raises(FileNotFoundError, match=r'"absent" \(train_dataloader.*--cfg-options data_root=FOLDER'):
        train(data_root='absent')


def test_an_empty_folder():
    Path('empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image in 'empty/', the folder that `data_root` names;.*\.jpg"):
        train(data_root='empty')


def test_a_truncated_image_is_named_counted_and_left_out():
    content = Path('images/2.jpg').read_bytes()
    Path('images/2.jpg').write_bytes(content[: len(content) // 2])
    cfg = Config.fromfile('tiny.py')
    cfg.merge_from_dict({CROP: 32, 'train_dataloader.dataset.data_root': 'images', 'work_dir': 'out'})
    cfg.merge_from_dict({'train_dataloader.num_workers': 1, 'optim_wrapper.type': 'OptimWrapper'})
    for option in ('loss_scale', 'dtype'):
        cfg.optim_wrapper.pop(option, None)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.train_dataloader.dataset.num_broken == 1
    (line,) = (line for line in log().splitlines() if 'Skipped a broken image' in line)  # once, in two epochs
    assert 'images/2.jpg: is truncated' in line and '(1 so far)' in line
    assert runner.epoch == 2 and Path('out/epoch_2.pth').is_file()


def test_a_folder_of_broken_images():
    for path in Path('images').iterdir():
        path.write_bytes(b'no image')
    with pytest.raises(RuntimeError, match=r"All 5 images in 'images/' are broken"):
        train()


def test_an_unknown_corruption():
    with pytest.raises(KeyError, match=r'unknown corruption; mmebm has .*mmebm\.PatchMask.*PatchMaks'):
        train(f'{CORRUPTION}.type=mmebm.PatchMaks')


def test_an_unknown_option_of_a_corruption():
    message = r'^train_dataloader\.dataset\.pipeline\.3\.corruption \(type=.*PatchMask.*rate.*Correct it in tiny\.py'
    with pytest.raises(TypeError, match=message):
        train(f'{CORRUPTION}.rate=0.5')


def test_a_ratio_that_is_no_share():
    with pytest.raises(ValueError, match=r'PatchMask: ratio must be in \[0, 1\], not 1\.5'):
        train(f'{CORRUPTION}.ratio=1.5')


def test_an_image_size_that_the_mask_does_not_divide():
    message = 'PatchMask: patch_size 16 does not divide the image size 40x40; resize or crop the image before'
    with pytest.raises(ValueError, match=message):
        train(f'{CROP}=40', 'model.backbone.img_size=48')


def test_nothing_corrupted():
    with pytest.raises(ValueError, match="step_size='auto' needs a first batch in which the images are corrupted"):
        train(f'{CORRUPTION}.ratio=0')


def test_a_learning_rate_that_is_too_high():
    with pytest.raises(FloatingPointError) as caught:
        train('optim_wrapper.optimizer.lr=1e30')
    message = str(caught.value)
    assert 'The loss is not finite: loss = nan in epoch 2, iteration 6 (5 steps in a row).' in message
    assert 'images/' in message and 'learning rate' in message
    assert f'Last checkpoint: {Path("out/epoch_1.pth").absolute()}.' in message  # its weights are large, but finite


def test_a_weight_that_becomes_nan_leaves_the_last_checkpoint_as_it_was():
    config = Path('tiny.py').read_text()
    Path('tiny.py').write_text(config + "custom_hooks = _base_.custom_hooks + [dict(type='mmebm.PoisonHook')]\n")
    with pytest.raises(FloatingPointError, match=r'loss = nan in epoch 2, iteration 4\.') as caught:
        train()
    assert f'Last checkpoint: {Path("out/epoch_1.pth").absolute()}.' in str(caught.value)
    assert [path.name for path in Path('out').glob('*.pth')] == ['epoch_1.pth']

    state = torch.load('out/epoch_1.pth', weights_only=False)['state_dict']
    model = MODELS.build(Config.fromfile('tiny.py').model)
    assert model.load_state_dict(state).missing_keys == []
    assert all(weight.isfinite().all() for weight in model.state_dict().values())

    Path('tiny.py').write_text(config)
    train(flags=['--resume'])
    assert 'resumed epoch: 1' in log() and Path('out/epoch_2.pth').is_file()
