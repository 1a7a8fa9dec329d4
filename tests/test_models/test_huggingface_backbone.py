import sys

import pytest
import torch
from mmengine.runner import save_checkpoint
from tiny import build_ebm

from mmebm.apis.features import by_position
from mmebm.evaluation.frozen_features import pooled_features
from mmebm.models import HuggingFaceBackbone

TINY = dict(
    model_type='vit', hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8,
    patch_size=4,
)  # fmt: skip
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def features(backbone):
    backbone.eval()
    return backbone(IMAGES)[0]


def test_tokens_without_a_pooler():
    backbone = HuggingFaceBackbone(config=TINY)
    assert features(backbone).shape == (2, 5, 16)
    assert [key for key, _ in backbone.named_parameters() if 'pooler' in key] == []


def test_frozen_features_are_those_of_patches_alone():
    """transformers do not tell how many of the tokens are extra ones; a grid of patches does."""
    model = build_ebm(backbone=HuggingFaceBackbone(config=TINY), head=dict(in_channels=16)).eval()
    tokens = features(model.backbone)
    torch.testing.assert_close(pooled_features(model, IMAGES), tokens[:, 1:].mean(dim=1))
    maps = by_position(model, tokens, IMAGES)
    torch.testing.assert_close(maps, tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 2)))


def test_weights_of_a_saved_model_are_loaded_and_kept(tmp_path):
    saved = HuggingFaceBackbone(config=TINY)
    saved.model.save_pretrained(tmp_path)
    loaded = HuggingFaceBackbone(str(tmp_path), pretrained=True)
    loaded.init_weights()
    torch.testing.assert_close(features(loaded), features(saved))
    fresh = HuggingFaceBackbone(str(tmp_path))
    assert features(fresh).shape == features(saved).shape and not torch.allclose(features(fresh), features(saved))


def test_loads_the_backbone_of_a_pretraining_checkpoint(tmp_path):
    trained = HuggingFaceBackbone(config=TINY)
    state = {f'backbone.{key}': value for key, value in trained.state_dict().items()}
    save_checkpoint(dict(state_dict=state), str(tmp_path / 'epoch_1.pth'))
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'), prefix='backbone.')
    loaded = HuggingFaceBackbone(config=TINY, init_cfg=init_cfg)
    loaded.init_weights()
    torch.testing.assert_close(features(loaded), features(trained))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(), 'give either model_name or config'),
        (dict(model_name='google/vit', config=TINY), 'give either model_name or config'),
        (dict(config=TINY, pretrained=True), 'pretrained=True needs a model_name'),
        (dict(config=dict(hidden_size=16)), r"needs a model_type, such as 'vit'; it has \['hidden_size'\]"),
        (dict(config=TINY | dict(model_type='vitt')), "'?vitt'?"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        HuggingFaceBackbone(**options)


def test_without_transformers_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='pip install "transformers'):
        HuggingFaceBackbone(config=TINY)
