"""The test script's `--show-dir` and `--tta`, for all kinds of models."""

import inspect

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, DefaultScope

from mmebm.config_files import find_config
from mmebm.launch.drawing import adapt_drawing, check_tta


def enabled(name, **changes):
    """A config as mmpretrain's script leaves it for ``--show-dir shown``."""
    cfg = Config.fromfile(find_config(name))
    cfg.merge_from_dict(changes)
    cfg.default_hooks.visualization.update(enable=True, show=False, wait_time=2.0, out_dir='shown', interval=1)
    adapt_drawing(cfg)
    return cfg


def arguments(hook, scope):
    with DefaultScope.overwrite_default_scope(scope), HOOKS.switch_scope_and_registry(scope) as registry:
        signature = inspect.signature(registry.get(hook.type))
    return {*signature.parameters}, {*hook} - {'type', '_scope_'}


@pytest.mark.parametrize('name', ['ebm_vit-b_in1k', 'ebm-patches_vit-b_in1k', 'ebm_vit-w128_32px', 'ebm_vit-t_shapes'])
def test_restorations_are_drawn_by_a_hook_of_their_own(name):
    shipped = enabled(name).default_hooks.visualization
    mmpretrains = enabled(name, **{'default_hooks.visualization.type': 'VisualizationHook'})  # in a config of one's own
    assert shipped.type == mmpretrains.default_hooks.visualization.type == 'mmebm.RestorationVisualizationHook'
    assert (shipped.out_dir, shipped.interval) == ('shown', 1)


def test_classifications_are_drawn_by_mmpretrains():
    assert enabled('finetune_ebm-vit-b_in1k').default_hooks.visualization.type == 'VisualizationHook'


def test_segmentations_are_drawn_into_the_folder():
    pytest.importorskip('mmseg')
    cfg = enabled('upernet_ebm-vit-t_shapes')
    known, given = arguments(cfg.default_hooks.visualization, 'mmseg')
    assert given - known == set()
    assert cfg.default_hooks.visualization.draw is True
    assert cfg.visualizer.save_dir == 'shown'


def test_detections_are_drawn_into_the_folder(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    cfg = enabled('mask-rcnn_ebm-vit-t_shapes')
    known, given = arguments(cfg.default_hooks.visualization, 'mmdet')
    assert given - known == set()
    assert cfg.default_hooks.visualization.draw is True
    assert cfg.default_hooks.visualization.test_out_dir == str(tmp_path / 'shown')


@pytest.mark.parametrize('name', ['ebm_vit-b_in1k', 'upernet_ebm-vit-t_shapes', 'finetune_ebm-vit-b_in1k'])
def test_hooks_that_draw_nothing_stay(name):
    cfg = Config.fromfile(find_config(name))
    before = cfg.default_hooks.visualization.copy()
    adapt_drawing(cfg)
    assert cfg.default_hooks.visualization == before


@pytest.mark.parametrize(
    'name, model',
    [('ebm_vit-b_in1k', 'EBMAlgorithm'), ('ebm-patches_vit-b_in1k', 'PatchEBM'), ('mae_vit-w128_32px', 'MAE')],
)
def test_tta_needs_class_scores(name, model):
    with pytest.raises(ValueError, match=f'--tta averages the class scores.*; {model} predicts none'):
        check_tta(Config.fromfile(find_config(name)))


def test_tta_needs_a_merging_model_in_detection():
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match='MaskRCNN predicts none, and the config has no tta_model of its own'):
        check_tta(Config.fromfile(find_config('mask-rcnn_ebm-vit-b_coco')))


def test_tta_needs_a_pipeline():
    with pytest.raises(ValueError, match=r'--tta flips images at the end of test_dataloader\.dataset\.pipeline'):
        check_tta(Config.fromfile(find_config('ood_ebm-convnext-t_in1k')))


@pytest.mark.parametrize('name', ['finetune_ebm-vit-b_in1k', 'linear_ebm-vit-b_in1k', 'upernet_ebm-vit-b_ade20k'])
def test_tta_of_classifiers_and_of_segmentors_is_let_through(name):
    check_tta(Config.fromfile(find_config(name)))
