"""Commands whose input is wrong end with one line that names it, before any work."""

import importlib.util
import re

import pytest
from PIL import Image
from tiny import save_ebm

from mmebm.commands import app, energy, evaluate, import_weights, make_shapes, plan, pretrain, report

SPEC = importlib.util.find_spec


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder of images, and a checkpoint."""
    place = tmp_path_factory.mktemp('place')
    (place / 'images').mkdir()
    for i in range(8):
        Image.new('RGB', (40, 40), (20 * i, 0, 0)).save(place / 'images' / f'{i}.png')
    save_ebm(place / 'a.pth')
    return place


@pytest.mark.parametrize(
    ('command', 'words', 'message'),
    [
        (energy, '{}/images --checkpoint {}/a.pth --device foo', '--device foo: '),
        (app, '{}/a.pth --port 99999', '99999 is no port, 1 to 65535'),
        (plan, 'tokenizers/vqvae_in1k --gpu cpu', 'trains no backbone, so there is nothing to plan'),
        (plan, 'ebm_vit-t_shapes --gpu cpu --json {}/no/p.json', 'there is no folder'),
        (plan, 'ebm_vit-t_shapes --gpu cpu --cfg-options model.backbone.depthh=3', 'depthh'),
        (plan, 'ebm_vit-t_shapes --gpu cpu --cfg-options model.backbone.type=Foo', "Foo'?.* is not in the"),
        (import_weights, '{}/a.pth --from timm --config tokenizers/vqvae_in1k --out {}/b.pth', 'has no model.backbone'),
        (report, '{} --out {}', 'no training has left its log here'),
        (make_shapes, '/proc/none/x --layout imagenet', '/proc/none'),
        (pretrain, '{}/images --out {}/new --image-size -64', '--image-size must be at least 1, not -64'),
        (pretrain, '{}/images --out {}/new --cfg-options train_cfg.max_epochs=5', 'give --epochs'),
        (pretrain, '{}/images --out {}/new --to hf', 'Exporting to hf needs transformers'),
        (evaluate, '{}/a.pth --gpus 0', '--gpus: 0 is no whole number of at least 1'),
    ],
)
def test_one_line(place, capsys, monkeypatch, command, words, message):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'transformers' else SPEC(name))
    with pytest.raises(SystemExit) as end:
        command.main([word.replace('{}', str(place)) for word in words.split()])
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err.strip().splitlines()[-1])
    assert not (place / 'new').exists()
