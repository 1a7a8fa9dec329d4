"""The commands, from a checkpoint to files and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

from mmebm.commands import export, import_weights
from mmebm.interchange import TARGETS

BACKBONE = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
    img_size=16,
    patch_size=4,
    out_type='raw',
)


@pytest.fixture
def checkpoint(tmp_path):
    model = MODELS.build(dict(BACKBONE))
    torch.nn.init.normal_(model.pos_embed)
    state = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=state, meta=dict(cfg=f'model = dict(backbone={BACKBONE!r})')), path)
    return path


def test_exports_beside_the_checkpoint_and_says_how_large_the_difference_is(checkpoint, capsys):
    export.main([str(checkpoint), '--to', 'timm', '--image-size', '24'])
    printed = capsys.readouterr().out
    assert 'Largest difference of features: ' in printed and '2 images of 24 x 24 pixels' in printed
    folder = checkpoint.with_name('epoch_1_timm')
    assert sorted(path.name for path in folder.iterdir()) == ['config.json', 'load.py', 'model.safetensors']
    assert all(f'Wrote {path}' in printed for path in folder.iterdir())


@pytest.mark.parametrize('mask, folder_mode, file_mode', [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_others_may_read_what_is_exported_as_far_as_the_umask_says(checkpoint, tmp_path, mask, folder_mode, file_mode):
    (tmp_path / 'hf').mkdir(mode=0o750)  # which stays as it was made
    before = os.umask(mask)
    try:
        for target in ('timm', 'hf'):
            export.main([str(checkpoint), '--to', target, '--out', str(tmp_path / target)])
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / 'timm', tmp_path / 'hf')}
    assert modes == {tmp_path / 'timm': folder_mode, tmp_path / 'hf': 0o750}
    files = [file for folder in modes for file in folder.iterdir()]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
        file.name: oct(file_mode) for file in files
    }


def test_warns_of_channels_of_an_unknown_order_and_can_reverse_them(checkpoint, tmp_path, capsys):
    export.main([str(checkpoint), '--to', 'timm', '--out', str(tmp_path / 'as-loaded')])
    assert 'Warning: Channels, and mean and std with them, are in the order in which' in capsys.readouterr().out
    export.main([str(checkpoint), '--to', 'timm', '--out', str(tmp_path / 'rgb'), '--channels', 'bgr'])
    printed = capsys.readouterr().out
    assert 'Warning' not in printed and 'were reversed in the export, so that it takes RGB' in printed
    as_loaded, rgb = (load_file(tmp_path / name / 'model.safetensors') for name in ('as-loaded', 'rgb'))
    key = 'patch_embed.proj.weight'
    assert rgb.pop(key).equal(as_loaded[key].flip(1)) and not as_loaded.pop(key).isnan().any()
    assert all(rgb[key].equal(value) for key, value in as_loaded.items())


def test_what_was_exported_loads_without_mmebm(checkpoint, tmp_path):
    export.main([str(checkpoint), '--to', 'torchvision', '--out', str(tmp_path / 'out')])
    width = 'model.eval()(torch.zeros(1, 3, 16, 16)).shape[1]'
    code = f'import sys, torch; from load import model; print({width}, sys.modules)'
    folder = tmp_path / 'out'
    result = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout.startswith('16 ') and "'mmebm'" not in result.stdout


def test_there_and_back(checkpoint, tmp_path, capsys):
    export.main([str(checkpoint), '--to', 'hf', '--out', str(tmp_path / 'hf')])
    config = tmp_path / 'config.py'
    config.write_text(f'model = dict(backbone={BACKBONE!r})')
    out = tmp_path / 'a start.pth'
    weights = tmp_path / 'hf' / 'model.safetensors'
    import_weights.main([str(weights), '--from', 'hf', '--config', str(config), '--out', str(out)])
    assert f"model.backbone.init_cfg.checkpoint='{out}' " in capsys.readouterr().out
    original, back = (torch.load(path, weights_only=True)['state_dict'] for path in (checkpoint, out))
    assert set(original) == set(back) and all(back[key].equal(value) for key, value in original.items())
    model = MODELS.build(BACKBONE | dict(img_size=32))
    load_checkpoint(model, str(out), revise_keys=[(r'^backbone\.', '')], strict=True)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.pth', '--to', 'timm'], 'No checkpoint "absent.pth"'),
        (['CHECKPOINT', '--to', 'timm', '--config', 'absent'], 'No config file "absent"'),
        (
            ['CHECKPOINT', '--to', 'timm', '--config', 'ebm_vit-t_folder'],
            'is of another architecture than the',
        ),
        (['CHECKPOINT', '--to', 'timm', '--image-size', '0'], "'0' is no whole number of at least 1"),
        (['CHECKPOINT', '--to', 'timm', '--image-size', '-32'], "'-32' is no whole number of at least 1"),
        (['CHECKPOINT', '--to', 'elsewhere'], "invalid choice: 'elsewhere'"),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(checkpoint, capsys, arguments, message):
    arguments = [str(checkpoint) if argument == 'CHECKPOINT' else argument for argument in arguments]
    with pytest.raises(SystemExit):
        export.main(arguments)
    assert message in capsys.readouterr().err
    assert [path.name for path in checkpoint.parent.iterdir()] == ['epoch_1.pth']


def test_the_launchers():
    tools = Path(__file__).parents[2] / 'tools'
    for name in ('export', 'import_weights'):
        assert f'from mmebm.commands.{name} import main' in (tools / f'{name}.py').read_text()
    assert [*TARGETS] == ['timm', 'hf', 'torchvision', 'mmpretrain', 'mmseg', 'mmdet', 'onnx']
