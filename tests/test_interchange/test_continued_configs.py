"""Configs that start from others' weights: they build at full size, and take the weights in whole."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from randomized import randomize

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted((ROOT / 'continued').glob('*.py'))
OFFLINE = {
    'TIMMBackbone': dict(pretrained=False),
    'mmebm.HuggingFaceBackbone': dict(model_name=None, pretrained=False, config=dict(model_type='vit')),
}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_at_full_size_and_scores_an_image(path):
    header = path.read_text().split('"""')[1]
    assert all(field in header for field in ('Paper:', 'Command:', 'Hardware:', 'Time:', 'Expect:', path.name))
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(OFFLINE.get(cfg.model.backbone.type, {}))
    model = MODELS.build(cfg.model).to('meta')  # shapes without arithmetic
    assert model.energy(torch.zeros(2, 3, 224, 224, device='meta')).shape == (2,)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert 224 % next(step for step in pipeline if step.type == 'mmebm.CorruptedPair').corruption.patch_size == 0


@pytest.mark.parametrize(
    ('config', 'original'),
    [
        ('ebm_vit-b-mae_in1k', 'mae/mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k.py'),
        ('ebm_vit-b-dinov2_in1k', 'dinov2/vit-base-p14_dinov2-pre_headless.py'),
    ],
)
def test_the_weights_are_those_of_mmpretrains_own_config(config, original, tmp_path, caplog):
    """At a tenth of the size. Everything under ``backbone.`` of their model becomes ours, resized where need be."""
    small = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48)
    theirs = Config.fromfile(f'{_installed()}/{original}').model
    theirs.backbone.update(arch=small)
    theirs = randomize(MODELS.build(dict(theirs.backbone, type=theirs.backbone.type)))
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    torch.save(dict(state_dict=state | {'neck.weight': torch.ones(1)}), tmp_path / 'theirs.pth')

    ours = Config.fromfile(ROOT / 'continued' / f'{config}.py').model.backbone
    assert ours.init_cfg.checkpoint.startswith('https://mmassets.onedl.ai/') and ours.init_cfg.prefix == 'backbone.'
    ours.arch = small
    ours.init_cfg.checkpoint = str(tmp_path / 'theirs.pth')
    ours = MODELS.build(ours)
    ours.init_weights()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for key, value in ours.state_dict().items():
        assert key == 'pos_embed' or value.equal(theirs.state_dict()[key])
    ours.eval(), theirs.eval()
    images = torch.randn(1, 3, 224, 224)
    expected = theirs(images, mask=None) if config.endswith('mae_in1k') else theirs(images)
    features = ours(images)[-1]
    torch.testing.assert_close(features if expected[-1].ndim == 3 else features[:, 0], expected[-1])


def _installed():
    import mmpretrain

    return Path(mmpretrain.__file__).parent / '.mim' / 'configs'
