"""mmpretrain's own tools on shipped configs: features of images, and the check of a data set's files."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import FeatureExtractor
from mmpretrain.registry import DATASETS
from shrink import TINY_BACKBONES, TINY_WIDTHS

from mmebm.config_tree import nested_dicts
from mmebm.launch.scripts import load_script

ROOT = Path(__file__).parents[2]
CONFIGS = [
    'ebm_vit-s_in1k',
    'ebm-mix_vit-b_in1k',
    'ebm-patches_vit-s_in1k',
    'ebm_vit-t_shapes',
    'ebm_vit-t_cifar10',
    'ebm-patches_vit-t_shapes-64px',
    'peers/ebm_vit-w128_32px',
    'peers/ebm-patches_vit-w128_32px',
]


def tiny(name):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    backbone = cfg.model.backbone
    backbone.update(TINY_BACKBONES[backbone.type])
    cfg.model.head.in_channels = TINY_WIDTHS[backbone.type]
    cfg.model.training_step = dict(compile=False)
    return cfg


@pytest.fixture
def images(tmp_path):
    """Three files, one of them truncated."""
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (300, 280, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), noise)
    broken = tmp_path / '2.jpg'
    broken.write_bytes(broken.read_bytes()[:-5000])
    return tmp_path


@pytest.mark.parametrize('name', CONFIGS)
def test_features_of_any_image(name, images):
    extract = FeatureExtractor(tiny(name), device='cpu')
    from_file, from_array = extract([str(images / '0.jpg'), cv2.imread(str(images / '0.jpg'))])
    assert isinstance(from_file, tuple) and from_file[-1].shape[-1] == 32
    torch.testing.assert_close(from_file, from_array)


def test_features_are_those_of_the_clean_image(images):
    cfg = tiny('ebm_vit-s_in1k')
    cfg.test_dataloader.dataset.data_root = str(images)
    clean = DATASETS.build(cfg.test_dataloader.dataset)[0]['inputs'][1]
    extract = FeatureExtractor(cfg, device='cpu')
    (features,) = extract(str(images / '0.jpg'))
    batch = extract.model.data_preprocessor(dict(inputs=clean[None], data_samples=None), False)
    torch.testing.assert_close(features[-1], extract.model.extract_feat(batch['inputs'])[-1][0])


def test_our_loader_under_its_own_name_takes_the_inferencers_image(images):
    cfg = tiny('ebm_vit-s_in1k')
    cfg.test_dataloader.dataset.pipeline[0] = dict(
        type='mmebm.LoadImage', value_range=(0, 4095), color_type='unchanged'
    )
    cfg.test_dataloader.dataset.pipeline[-2].corruption.pop('seed')
    extract = FeatureExtractor(cfg, device='cpu')
    image = cv2.imread(str(images / '0.jpg'))
    deep = (image.astype(np.float32) * (4095 / 255)).round().astype(np.uint16)
    (expected,) = FeatureExtractor(extract.model, device='cpu')(deep)
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    extract.model._config = cfg
    (features,) = FeatureExtractor(extract.model, device='cpu')(image)
    difference = (features[-1] - expected[-1]).abs().mean()
    assert difference < 0.01  # the resized 8-bit image is rounded


@pytest.mark.parametrize('name', [dict(type='mmebm.LoadImage'), dict(type='LoadImageFromFile', _scope_='mmebm')])
def test_features_of_files_follow_the_loader(name, tmp_path):
    plain = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'plain.png'), plain)
    cv2.imwrite(str(tmp_path / 'deep.png'), plain.astype(np.uint16) * 16)  # 4080 at most
    cfg = tiny('ebm_vit-s_in1k')
    extract = FeatureExtractor(cfg, device='cpu')
    (expected,) = extract(str(tmp_path / 'plain.png'))
    cfg.test_dataloader.dataset.pipeline[0] = name | dict(value_range=(0, 4080))
    extract.model._config = cfg
    deep = FeatureExtractor(extract.model, device='cpu')
    array = cv2.imread(str(tmp_path / 'deep.png'), cv2.IMREAD_UNCHANGED)
    for (features,) in (deep(str(tmp_path / 'deep.png')), deep(array)):
        torch.testing.assert_close(features[-1], expected[-1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('phase', ['train', 'test'])
@pytest.mark.parametrize('name', ['ebm_vit-s_in1k', 'peers/ebm-patches_vit-w128_32px'])
def test_verify_dataset_lists_broken_files(name, phase, images, tmp_path, monkeypatch):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    for _, node in nested_dicts(cfg[f'{phase}_dataloader']):
        if 'data_root' in node:
            node['data_root'], node['data_prefix'], node['with_label'] = str(images), '', False
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['verify_dataset.py', 'config.py', '--phase', phase])
    load_script('misc/verify_dataset').main()
    assert Path('brokenfiles.log').read_text().split() == [str(images / '2.jpg')]
