"""What comes of checkpoints that are sound, damaged, hostile, or of something else."""

import os
import sys
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from randomized import BACKBONES, save_checkpoint
from safetensors.torch import save_file

from mmebm.checkpoint import check_fit, model_config, part, read_checkpoint
from mmebm.config_files import find_config
from mmebm.interchange import UnsupportedError, export
from mmebm.interchange.source import read_source

VIT = BACKBONES['VisionTransformer']
STATE = {'backbone.weight': torch.ones(2)}


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class Lookup:
    """Looks up something by its name when it is unpickled, as mmengine's log history does."""

    def __reduce__(self):
        return getattr, (OrderedDict, 'fromkeys')


def config_file(path, backbone):
    path.write_text(f'model = dict(backbone={backbone!r})')
    return Config.fromfile(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'epoch_1.pth'


def test_a_checkpoint_of_the_runner(tmp_path, monkeypatch):
    """With optimiser, scheduler and log history, which pickles NumPy arrays and ``getattr``."""
    from shrink import shrink

    cfg = shrink(Config.fromfile(find_config('ebm_vit-b_in1k')), str(tmp_path))
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=1)]
    runner = Runner.from_cfg(cfg)
    runner.train()
    saved = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / 'epoch_1.pth')
    assert 'builtins.getattr' in saved  # else there is nothing to test here

    checkpoint = read_checkpoint(tmp_path / 'epoch_1.pth')
    trained = runner.model.state_dict()
    assert set(checkpoint.state) == set(trained)
    assert all(value.equal(trained[key]) for key, value in checkpoint.state.items())
    assert model_config(checkpoint)['backbone'] == cfg.model.backbone
    result = export(tmp_path / 'epoch_1.pth', 'timm', tmp_path / 'timm')
    assert result.difference < 1e-4 and result.image_size == (64, 64)


def test_a_lookup_by_name_finds_nothing(path):
    torch.save(dict(state_dict=STATE, meta=dict(cfg=Lookup())), path)
    assert not callable(read_checkpoint(path).meta['cfg'])


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / 'model.safetensors')
    assert part(read_checkpoint(tmp_path / 'model.safetensors'))['weight'].tolist() == [1, 1]


@pytest.mark.parametrize('is_zip', [True, False])
def test_code_is_refused_and_does_not_run(path, is_zip):
    hostile = dict(state_dict=STATE, meta=Hostile(path.with_name('ran')))
    torch.save(hostile, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r'epoch_1\.pth is refused: it pickles (posix|nt)\.system, and unpickling'):
        read_checkpoint(path)
    assert not path.with_name('ran').exists()


def test_a_whole_module_is_refused(path):
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r'is refused: it pickles torch\.nn\.modules\.linear\.Linear'):
        read_checkpoint(path)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_truncated_file(path, share):
    torch.save(dict(state_dict={'backbone.weight': torch.ones(1000)}), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r'epoch_1\.pth is truncated or no checkpoint'):
        read_checkpoint(path)


@pytest.mark.parametrize('name', ['epoch_1.pth', 'model.safetensors'])
def test_something_else(tmp_path, name):
    (tmp_path / name).write_text('not weights, but a text that is long enough')
    with pytest.raises(ValueError, match=f'{name} is truncated or no '):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        (dict(epoch=1, lr=0.1), 'a dict of epoch, lr'),
        ([1, 2], 'a list'),
        (dict(state_dict={}), 'a dict of state_dict'),
    ],
)
def test_a_file_without_weights(path, content, found):
    torch.save(content, path)
    with pytest.raises(ValueError, match=f'is no checkpoint: it holds {found}, and no weights under state_dict, model'):
        read_checkpoint(path)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match='No checkpoint ".*epoch_1.pth"'):
        read_checkpoint(path)


def test_no_backbone(path):
    torch.save(dict(state_dict={'encoder.a': STATE['backbone.weight'], 'encoder.b': torch.ones(1)}), path)
    with pytest.raises(ValueError, match=r'no weights under "backbone\.": its names start with encoder \(2\)'):
        part(read_checkpoint(path))


def test_another_architecture_is_named_key_by_key():
    found = dict(a=torch.ones(2), b=torch.ones(3), extra=torch.ones(1))
    expected = dict(a=torch.ones(2), b=torch.ones(4), c=torch.ones(1))
    message = (
        r'F is of another architecture than M: missing: c; unexpected: extra; of another shape: b \(3,\), not \(4,\)'
    )
    with pytest.raises(ValueError, match=message):
        check_fit(found, expected, 'F', 'M')
    check_fit(dict(a=found['a']), dict(a=expected['a']), 'F', 'M')


def test_a_config_of_another_architecture(path):
    save_checkpoint(path, VIT)
    config = config_file(path.with_name('other.py'), VIT | dict(patch_size=4))
    with pytest.raises(
        ValueError, match=r'than the backbone of .*other\.py: of another shape: pos_embed \(1, 17, 32\)'
    ):
        read_source(path, config)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'does not say with which config it was trained; give the config'),
        ('a = 1', r'has no model; give the config that it was trained with \(--config\)'),
        ('model = dict(', 'cannot be read as data'),
        ('model = dict(backbone=print(1))', r'cannot be read as data \("print\(1\)" is no literal\)'),
        ('model = {**a}', r'cannot be read as data \("\*\*" is no literal\)'),
        ("model = dict(**{'backbone': 1})", r'cannot be read as data \("dict\(\*\*.*" is no literal\)'),
        ("model = dict(depth=-'a')", r"cannot be read as data \(\"-'a'\" is no literal\)"),
        ("model = dict(backbone=dict(type='subprocess.Popen', args='true'))", 'only VisionTransformer, .* are built'),
        ("model = dict(backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='os.system')))", 'by their module'),
        ('model = dict(type="EBM")', 'has no model.backbone.type'),
    ],
)
def test_a_config_in_a_checkpoint_is_data(path, text, message):
    torch.save(dict(state_dict=STATE, meta=dict() if text is None else dict(cfg=text)), path)
    with pytest.raises(ValueError, match=message):
        read_source(path)


def test_reading_a_config_runs_nothing_of_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'touched', None)
    torch.save(
        dict(state_dict=STATE, meta=dict(cfg='import touched\nmodel = dict(a=(-1, [None]), b={"c": 2.5})')), path
    )
    assert model_config(read_checkpoint(path)) == dict(data_preprocessor=None, a=(-1, [None]), b={'c': 2.5})


def test_weights_named_by_a_checkpoint_are_not_fetched(path):
    backbone = VIT | dict(init_cfg=dict(type='Pretrained', checkpoint='https://host.invalid/evil.pth'))
    save_checkpoint(path, VIT)
    content = torch.load(path, weights_only=True)
    content['meta']['cfg'] = Config(dict(model=dict(backbone=backbone))).pretty_text
    torch.save(content, path)
    assert 'init_cfg' not in read_source(path).cfg


def test_other_backbones_need_the_config_and_go_to_openmmlab(path, tmp_path):
    backbone = dict(type='mmpretrain.MobileNetV2', widen_factor=0.25)
    save_checkpoint(path, backbone)
    with pytest.raises(ValueError, match=r'its backbone is a mmpretrain\.MobileNetV2; from what a checkpoint says'):
        export(path, 'mmseg', tmp_path / 'mmseg')
    config = config_file(tmp_path / 'mobilenet.py', backbone)
    assert export(path, 'mmseg', tmp_path / 'mmseg', config, image_size=None).difference == 0
    with pytest.raises(UnsupportedError, match='A MobileNetV2 cannot be exported to timm'):
        export(path, 'timm', tmp_path / 'timm', config)


def test_a_folder_with_content_is_not_written_into(path, tmp_path):
    save_checkpoint(path, VIT)
    with pytest.raises(FileExistsError, match='is not an empty folder'):
        export(path, 'timm', tmp_path)
