"""Tasks of networks that no config is for, on folders of classes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from shrink import TINY_BACKBONES, TINY_WIDTHS

from mmebm.checkpoint import Checkpoint, read_checkpoint
from mmebm.commands import evaluate, make_shapes
from mmebm.datasets import ImageFolder
from mmebm.engine.evaluating import evaluating
from mmebm.experiments.downstream.evaluation import Evaluation
from mmebm.experiments.downstream.fitting import describe, leave_out_slow_average
from mmebm.experiments.downstream.trainings import Run, check_age, logged
from mmebm.launch.checks.pretrained import check_architecture
from mmebm.model_building import build_initialized, type_name

CONFIGS = Path(__file__).parents[2] / 'configs'
EVERY_KIND = (
    'ebm_vit-s_in1k', 'ebm-patches_vit-s_in1k', 'ebm_swin-b_in1k', 'ebm_convnext-t_in1k', 'ebm_resnet50_in1k'
)  # fmt: skip


def pretrain(config, path):
    """A checkpoint of a shipped config with a tiny backbone for images of 64 pixels, of initial weights."""
    cfg = Config.fromfile(CONFIGS / f'{config}.py')
    backbone = cfg.model.backbone
    backbone.update(TINY_BACKBONES[backbone.type])
    if 'img_size' in backbone:
        backbone.img_size = 64
    (cfg.model.get('data_preprocessor') or cfg.data_preprocessor).update(mean=[100.0] * 3, std=[50.0] * 3)
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    state = {f'backbone.{key}': value for key, value in MODELS.build(backbone).state_dict().items()}
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=state), path)
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders of ten classes, forty images to train with and ten to test with."""
    folder = tmp_path_factory.mktemp('fitting') / 'data'
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '40', '--val', '10', '--image-size', '80'])
    (folder / 'val').rename(folder / 'test')
    return folder


def plan(path, data, tmp_path, tasks=None):
    evaluation = Evaluation([str(path)], tasks, str(data), work_dir=tmp_path / 'runs')
    return {run.task: run.cfg for run in evaluation.plan_runs() if run.init != 'random'}


@pytest.mark.slow
@pytest.mark.parametrize('config', EVERY_KIND)
def test_any_network_of_a_kind_with_configs_is_classified(config, data, tmp_path):
    path = pretrain(config, tmp_path / 'a.pth')
    configs = plan(path, data, tmp_path)
    width = TINY_WIDTHS[Config.fromfile(CONFIGS / f'{config}.py').model.backbone.type]
    assert [*configs] == ['knn', 'linear', 'finetune']
    for task, cfg in configs.items():
        check_architecture(read_checkpoint(path), cfg.model.backbone, cfg.default_scope)
        assert (cfg.data_preprocessor.mean, cfg.data_preprocessor.std) == ([100.0] * 3, [50.0] * 3)
        assert cfg.train_dataloader.dataset.pipeline[1].scale == 64
        assert [step.get('crop_size') for step in cfg.val_dataloader.dataset.pipeline][2] == 64
        if 'vit' in config and task != 'finetune':
            assert cfg.model.backbone.frozen_stages == 2
        model = build_initialized(cfg)
        with evaluating(model), torch.no_grad():
            features = model.extract_feat(torch.rand(1, 3, 64, 64))
            assert features[-1].shape[:2] == (1, width)
            assert task == 'knn' or model.head(features).shape == (1, 10)


def test_folders_of_classes(data, tmp_path):
    cfg = plan(pretrain('ebm_vit-s_in1k', tmp_path / 'a.pth'), data, tmp_path)['finetune']
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (10, 10)
    assert cfg.train_dataloader.batch_size == 8
    read = [cfg[f'{name}_dataloader'].dataset.data_prefix for name in ('train', 'val', 'test')]
    assert read == ['train', 'test', 'test']


def test_learning_rates_of_few_images(data, tmp_path):
    """In proportion to a batch of 8, they would be 6.4 / 2048 by LARS and 2e-3 / 128, by which nothing is learned."""
    configs = plan(pretrain('ebm_vit-s_in1k', tmp_path / 'a.pth'), data, tmp_path)
    assert dict(configs['linear'].optim_wrapper.optimizer) == dict(type='AdamW', lr=1e-2, weight_decay=0.0)
    assert configs['finetune'].optim_wrapper.optimizer.lr == pytest.approx(2e-3 * (8 / 1024) ** 0.5)
    assert [configs[task].auto_scale_lr.base_batch_size for task in ('linear', 'finetune')] == [8, 8]


def test_the_average_of_weights_is_left_out_where_it_would_be_the_initial_ones(data, tmp_path, monkeypatch):
    """300 epochs of 5 steps are 0.15 of the 10,000 steps of a momentum of 1e-4."""
    kinds = {
        type_name(hook) for hook in Config.fromfile(CONFIGS / 'finetune/finetune_ebm-convnext-t_in1k.py').custom_hooks
    }
    cfg = plan(pretrain('ebm_convnext-t_in1k', tmp_path / 'a.pth'), data, tmp_path)['finetune']
    assert 'EMAHook' in kinds and {type_name(hook) for hook in cfg.custom_hooks} == kinds - {'EMAHook'}
    cfg.custom_hooks = [dict(type='EMAHook', momentum=1e-4)]
    monkeypatch.setattr(ImageFolder, '__len__', lambda images: 100_000)
    cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size = 100, 99  # 101,000 steps of one process
    leave_out_slow_average(cfg, gpus=1)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    leave_out_slow_average(cfg, gpus=2)
    assert not cfg.custom_hooks


@pytest.mark.slow
@pytest.mark.parametrize(('config', 'task'), [('ebm_vit-s_in1k', 'linear'), ('ebm_convnext-t_in1k', 'finetune')])
def test_classes_that_can_be_separated_are_learned(tmp_path, config, task):
    rng = np.random.default_rng(0)
    for part, number in dict(train=20, test=10).items():
        for channel, name in ((0, 'red'), (2, 'blue')):
            (tmp_path / 'data' / part / name).mkdir(parents=True)
            for i in range(number):
                image = rng.integers(0, 256, (64, 64, 3), np.uint8)
                image[..., channel] = 255
                Image.fromarray(image).save(tmp_path / 'data' / part / name / f'{i}.png')
    work_dir = tmp_path / 'runs'
    arguments = [str(pretrain(config, tmp_path / 'a.pth')), '--data', str(tmp_path / 'data'), '--tasks', task]
    evaluate.main([*arguments, '--work-dir', str(work_dir), '--cfg-options', f'{task}.train_cfg.max_epochs=20'])
    rows = json.loads((work_dir / 'results.json').read_text())
    assert [row['value'] for row in rows] == [100.0, 100.0]


def test_checkpoints_of_other_normalisation_are_not_compared(data, tmp_path):
    paths = [pretrain('ebm_vit-s_in1k', tmp_path / f'{name}.pth') for name in 'ab']
    content = torch.load(paths[1])
    content['meta']['cfg'] = content['meta']['cfg'].replace('100.0', '120.0')
    torch.save(content, paths[1])
    evaluation = Evaluation([f'{path.stem}={path}' for path in paths], ['knn'], data=data, work_dir=tmp_path / 'runs')
    with pytest.raises(ValueError, match=r'b\.pth was trained with the normalization .*120.*a\.pth with .*100'):
        evaluation.plan_runs()


def test_without_folders_the_data_are_imagenet(tmp_path):
    path = pretrain('ebm_vit-s_in1k', tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=r'/none/imagenet.* as --data-root, or your own .* as --data$'):
        Evaluation([str(path)], data_root=str(tmp_path / 'none'), work_dir=tmp_path / 'runs').plan_runs()
    with pytest.raises(ValueError, match=r'seg: there is no config for the backbone of .*a\.pth; give --tasks knn'):
        Evaluation([str(path)], tasks=['seg'], work_dir=tmp_path / 'runs').plan_runs()


@pytest.mark.slow
def test_a_network_of_timm_has_knn(data, tmp_path):
    pytest.importorskip('timm')
    cfg = Config.fromfile(CONFIGS / 'ebm_vit-s_in1k.py')
    cfg.model.backbone = dict(type='TIMMBackbone', model_name='test_vit', features_only=False)
    state = {f'backbone.{key}': value for key, value in MODELS.build(cfg.model.backbone).state_dict().items()}
    path = tmp_path / 'a.pth'
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=state), path)
    assert plan(path, data, tmp_path, ['knn'])['knn'].model.backbone.model_name == 'test_vit'
    with pytest.raises(ValueError, match='TIMMBackbone: no config trains a classifier of it; give --tasks knn'):
        plan(path, data, tmp_path)


def test_rgb_images_of_pretraining_are_rgb_again():
    """CIFAR10 gives RGB, which its config leaves alone; images of files are BGR."""
    meta = dict(cfg=Config.fromfile(CONFIGS / 'ebm_vit-t_cifar10.py').pretty_text)
    pretrained = describe(Checkpoint(Path('a.pth'), {}, meta))
    assert pretrained.normalization['to_rgb'] is True
    assert (pretrained.image_size, pretrained.backbone['patch_size']) == (32, 4)


@pytest.mark.slow
def test_runs_on_folders(data, tmp_path):
    path = pretrain('ebm_vit-s_in1k', tmp_path / 'a.pth')
    options = ['linear.train_cfg.max_epochs=1', 'finetune.train_cfg.max_epochs=1']
    work_dir = tmp_path / 'runs'
    evaluate.main([str(path), '--data', str(data), '--work-dir', str(work_dir), '--cfg-options', *options])
    rows = json.loads((work_dir / 'results.json').read_text())
    assert [row['task'] for row in rows] == ['knn', 'knn', 'linear', 'linear', 'finetune', 'finetune']
    assert all(row['value'] in range(0, 101, 10) for row in rows)  # of ten images


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('color_type', 'grayscale', r"were read with \{'color_type': 'grayscale'\}; the tasks of --data read colour"),
        ('value_range', (0, 4095), r"were read with \{'value_range': \(0, 4095\)\}"),
        ('img_size', (64, 128), 'images of 64 x 128 pixels; the tasks of --data crop squares'),
    ],
)
def test_images_that_no_task_reads_like_the_pretraining(option, value, message):
    cfg = Config.fromfile(CONFIGS / 'ebm_vit-s_in1k.py')
    (cfg.model.backbone if option == 'img_size' else cfg.train_dataloader.dataset.pipeline[0])[option] = value
    with pytest.raises(ValueError, match=message):
        describe(Checkpoint(Path('a.pth'), {}, dict(cfg=cfg.pretty_text)))


def test_results_of_a_checkpoint_that_was_written_anew(tmp_path):
    checkpoint, run = tmp_path / 'epoch_1.pth', Run('knn', 'a', 0, Config(), tmp_path / 'run')
    run.folder.mkdir()
    checkpoint.touch()
    check_age(run, str(checkpoint))
    (run.folder / 'result.json').touch()
    os.utime(checkpoint, (1, 1))
    check_age(run, str(checkpoint))
    os.utime(run.folder / 'result.json', (0, 0))
    with pytest.raises(ValueError, match=r'run holds a result of an older .*epoch_1.pth, .* remove that folder'):
        check_age(run, str(checkpoint))
    check_age(run, None)  # random weights


def test_half_a_line_of_a_log_does_not_hide_the_others(tmp_path):
    for start, text in dict(a='{"accuracy/top1": 5', b='{"accuracy/top1": 91.0}').items():
        (tmp_path / start / 'vis_data').mkdir(parents=True)
        (tmp_path / start / 'vis_data' / 'scalars.json').write_text(text)
    assert logged(Run('linear', 'a', 0, Config(), tmp_path)) == [{'accuracy/top1': 91.0}]
