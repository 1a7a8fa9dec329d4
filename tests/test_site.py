"""The documentation site: its pages, and the code that they show."""

import re

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmpretrain.registry import MODELS
from page_commands import ROOT, code_blocks

from mmebm.corruptions import CorruptedPair
from mmebm.registry import TRANSFORMS


def pages_of(nav):
    return [page for entry in nav for page in entry.values()]


def test_the_site_has_every_page_once_and_fails_on_warnings():
    site = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
    generated = ['index.md', 'models.md', 'benchmarks/README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']
    written = [path.name for path in (ROOT / 'docs').glob('*.md')]
    assert sorted(pages_of(site['nav'])) == sorted([*written, *generated])
    assert site['strict'] is True and site['theme']['font'] is False


def without(registry, name):
    """What is registered, but for what another test may have registered of a page."""
    return {key: value for key, value in registry._module_dict.items() if key != name}


def test_the_corruption_of_the_page_works_and_is_short(monkeypatch):
    source, config = code_blocks('docs/corruptions.md')
    assert len(source.splitlines()) <= 15 + 1  # two blank ones before the class are style
    assert len([line for line in source.splitlines() if line]) <= 15
    monkeypatch.setattr(TRANSFORMS, '_module_dict', without(TRANSFORMS, 'Scratches'))
    exec(compile(source, 'scratches.py', 'exec'), {'__name__': 'scratches'})
    image = np.zeros((20, 30, 3), np.uint8)
    pairs = [CorruptedPair(dict(type='mmebm.Scratches', seed=0))(dict(img=image, sample_idx=0)) for _ in range(2)]
    corrupted, clean = pairs[0]['img']
    columns = (corrupted == 255).all(axis=(0, 2))
    assert 1 <= columns.sum() <= 8 and not clean.any() and not corrupted[:, ~columns].any()
    assert np.array_equal(corrupted, pairs[1]['img'][0]) and pairs[0]['corruption'] == 'scratches'


@pytest.mark.parametrize(('page', 'index', 'place', 'value'), [
    ('corruptions.md', 1, 'train_dataloader.dataset.pipeline.3.corruption.type', 'mmebm.Scratches'),
    ('corruptions.md', 1, 'test_dataloader.dataset.pipeline.3.corruption.seed', 0),
    ('backbones.md', 1, 'model.backbone', dict(type='MyBackbone')),
    ('backbones.md', 1, 'model.head.in_channels', 384),
])  # fmt: skip
def test_configs_of_the_pages_are_read(page, index, place, value, tmp_path):
    text = re.sub('custom_imports = .*', '', code_blocks(f'docs/{page}')[index])
    (tmp_path / 'mine.py').write_text(text)
    node = Config.fromfile(tmp_path / 'mine.py').to_dict()
    for key in place.split('.'):
        node = node[int(key)] if isinstance(node, list) else node[key]
    assert node == value


def test_the_backbone_of_the_page_is_pretrained(monkeypatch, tmp_path):
    source, text = code_blocks('docs/backbones.md')
    monkeypatch.setattr(MODELS, '_module_dict', without(MODELS, 'MyBackbone'))
    exec(compile(source, 'my_backbone.py', 'exec'), {'__name__': 'my_backbone'})
    (tmp_path / 'mine.py').write_text(re.sub('custom_imports = .*', '', text))
    cfg = Config.fromfile(tmp_path / 'mine.py')
    cfg.model.training_step.compile = False
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    assert model.backbone(torch.zeros(2, 3, 32, 32))[-1].shape == (2, 384, 2, 2)
    corrupted, clean = torch.rand(2, 2, 3, 32, 32) * 255
    inputs = model.data_preprocessor(dict(inputs=[corrupted, clean], data_samples=None), True)['inputs']
    model.loss(inputs, None)['loss'].backward()
    gradients = {name: p.grad.norm().item() for name, p in model.backbone.named_parameters() if p.grad is not None}
    assert len(gradients) >= 3 and all(0 < norm < float('inf') for norm in gradients.values())


def test_the_loss_of_the_method_s_page_is_differentiable():
    source = code_blocks('docs/method.md')[0]
    weight = torch.ones(3, requires_grad=True)
    names = dict(
        energy_fn=lambda x: (weight.view(3, 1, 1) * x**2).sum(dim=(1, 2, 3)) / 2,
        corrupted=torch.ones(1, 3, 2, 2),
        clean=torch.full((1, 3, 2, 2), 0.25),
        step_size=0.5,
    )
    exec(source, names)
    assert names['loss'].item() == pytest.approx(0.25)  # x - a w x = 0.5, and the clean image is 0.25
    assert weight.grad.tolist() == pytest.approx([-0.5 / 3] * 3)  # d|x (1 - a w) - c| / dw = -a x, over three channels
