"""Options that no argument of the model takes."""

import pytest
from mmengine.config import Config

from mmebm.config_files import find_config
from mmebm.launch.options import merge_options
from mmebm.model_building import build


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.compile', r'EBMAlgorithm has no such argument. Did you mean model.training_step.compile\?$'),
        ('model.micro_batch', r'Did you mean model.training_step.micro_batch\?$'),
        ('model.training_step.compiled', r'Did you mean model.training_step.compile'),
        ('model.num_step', r'Did you mean model.num_steps'),
        ('model.zzzzzzzzzzzzzz.a', r'--cfg-options model.zzzzzzzzzzzzzz.a: EBMAlgorithm has no such argument.'),
    ],
)
def test_unknown_arguments_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        merge_options(Config.fromfile(find_config('ebm_vit-t_shapes')), {option: 1})


def test_arguments_are_merged():
    cfg = Config.fromfile(find_config('ebm_vit-t_shapes'))
    options = {'model.training_step.micro_batch': 8, 'model.head.over': 'pooled', 'model.token_dropping.patch_size': 4}
    merge_options(cfg, options)
    assert (cfg.model.training_step.micro_batch, cfg.model.head.over) == (8, 'pooled')


def test_a_data_set_may_keep_the_root_that_others_leave():
    cfg = Config.fromfile(find_config('ebm_vit-s_in1k'))
    merge_options(cfg, {'data_root': 'new', 'test_dataloader.dataset.data_root': 'data/imagenet/train'})
    roots = [cfg[f'{name}_dataloader'].dataset.data_root for name in ('train', 'test')]
    assert roots == ['new', 'data/imagenet/train']


def test_arguments_are_those_of_the_model_that_an_option_chooses():
    cfg = Config.fromfile(find_config('ebm_vit-t_shapes'))
    merge_options(cfg, {'model.type': 'mmebm.PatchEBM', 'model.visible_ratio': 0.5})
    with pytest.raises(ValueError, match='model.num_steps: PatchEBM has no such argument'):
        merge_options(cfg, {'model.num_steps': 2})


@pytest.mark.parametrize('option', ['model.training_step.compile', 'model.compile', 'model.mask_ratio'])
def test_corrupted_image_modelling_has_no_training_step(option):
    with pytest.raises(ValueError, match=rf'{option}: CIM has no such argument\.'):
        merge_options(Config.fromfile(find_config('cim-revdet_vit-t_shapes')), {option: 1})


def test_other_models_are_not_checked():
    cfg = Config.fromfile(find_config('finetune_ebm-vit-t_shapes'))
    merge_options(cfg, {'model.anything': 1})
    assert cfg.model.anything == 1


def test_an_initialisation_of_another_type_keeps_nothing_of_the_old_one():
    start = {'model.backbone.init_cfg.type': 'Pretrained', 'model.backbone.init_cfg.checkpoint': 'mae.pth'}
    expected = dict(type='Pretrained', checkpoint='mae.pth')
    xavier = find_config('peers/ebm_vit-w128_32px')
    tied = find_config('ebm_vit-b_in1k')
    plain = find_config('ebm-mask_vit-b_in1k')
    for file in (xavier, tied, plain):
        cfg = Config.fromfile(file)
        merge_options(cfg, start)
        assert cfg.model.backbone.init_cfg == expected
        assert build(cfg.model.backbone | dict(arch='deit-tiny'), 'mmpretrain').init_cfg == expected
    merge_options(cfg, start | {'model.backbone.init_cfg.checkpoint': 'other.pth'})
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='other.pth')
    cfg = Config.fromfile(xavier)
    merge_options(cfg, {'model.backbone.init_cfg.type': 'Xavier', 'model.backbone.init_cfg.gain': 2})
    assert cfg.model.backbone.init_cfg == dict(type='Xavier', layer='Linear', distribution='uniform', gain=2)
