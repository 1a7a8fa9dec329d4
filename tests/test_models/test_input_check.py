"""Images and normalisation that do not fit each other, in units or in channels, are named."""

from functools import partial

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import OptimWrapper
from mmpretrain.datasets.transforms import MultiView, PackInputs
from tiny import build_ebm, tiny_vit
from torch.optim import SGD

from mmebm.config_files import find_config
from mmebm.corruptions import CorruptedPair, Grayscale
from mmebm.launch.checks.channels import check_channels_of
from mmebm.launch.preparation import prepare_test

THREE = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 57.0], to_rgb=True)
ONE = dict(mean=[120.0], std=[60.0])


def run(model, images, **kwargs):
    """Prediction of a batch, or of a pair, as a test loop makes it."""
    return model.test_step(dict(inputs=images, data_samples=None), **kwargs)


def noise(channels, dtype=torch.uint8, peak=255):
    return (torch.rand(2, channels, 8, 8) * peak).to(dtype)


@pytest.mark.parametrize(
    ('channels', 'preprocessor'), [(3, THREE), (3, ONE), (1, ONE), (4, ONE), (7, dict()), (1, dict(to_rgb=False))]
)
def test_what_fits(channels, preprocessor):
    model = build_ebm(backbone=tiny_vit(in_channels=channels), data_preprocessor=preprocessor)
    (sample, _) = run(model, noise(channels))
    assert sample.restored.shape == (channels, 8, 8)


def test_one_channel_and_three_means():
    message = (
        r'model\.backbone\.in_channels is 1, but data_preprocessor\.mean and data_preprocessor\.std have 3 values; '
        r'data_preprocessor\.to_rgb=True reorders three channels\. Set data_preprocessor\.mean=\[M\], '
        r"data_preprocessor\.std=\[S\] .*data_preprocessor\.to_rgb=False; .*color_type='grayscale'"
    )
    with pytest.raises(ValueError, match=message):
        build_ebm(backbone=tiny_vit(in_channels=1), data_preprocessor=THREE)


@pytest.mark.parametrize(
    ('name', 'key', 'place'),
    [
        ('ebm_vit-s_in1k', 'in_channels', 'data_preprocessor'),
        ('ebm_vit-t_shapes', 'in_channels', 'model.data_preprocessor'),
        ('continued/ebm_vit-b-timm_in1k', 'in_channels', 'model.data_preprocessor'),
        ('ebm-patches_vit-s_in1k', 'in_channels', 'data_preprocessor'),
        ('peers/mae_vit-w128_32px', 'in_channels', 'data_preprocessor'),
        ('finetune/finetune_ebm-vit-b_in1k', 'in_channels', 'data_preprocessor'),
        ('linear/linear_ebm-resnet50_in1k', 'in_channels', 'data_preprocessor'),
    ],
)
def test_one_channel_in_shipped_configs(name, key, place):
    cfg = Config.fromfile(find_config(name))
    check_channels_of(cfg)
    cfg.model.backbone[key] = 1
    message = rf'model\.backbone\.{key} is 1, but {place}\.mean and {place}\.std have 3 values'
    with pytest.raises(ValueError, match=message) as caught:
        check_channels_of(cfg)
    # A classifier's data preprocessor reorders three channels only.
    assert ('to_rgb=False' in str(caught.value)) == (not name.startswith(('finetune', 'linear')))
    assert ('model.head.image_channels=1' in str(caught.value)) == name.startswith('ebm-patches')


def test_a_test_is_checked_too():
    cfg = Config.fromfile(find_config('ebm_vit-t_shapes'))
    cfg.model.backbone.in_channels = 1
    with pytest.raises(ValueError, match='model.backbone.in_channels is 1'):
        prepare_test(cfg)


@pytest.mark.parametrize(
    ('channels', 'backbone', 'preprocessor', 'message'),
    [
        (4, 3, THREE, r'images have 4 channels, but .*\.std are for 3, data_preprocessor\.to_rgb=True for 3\. .*alpha'),
        (1, 3, THREE, r"images have 1 channels, but .*color_type='color' of mmebm\.LoadImage gives 3"),
        (3, 1, ONE, r"images have 3 channels, but the backbone 1 \(in_channels\)\. .*'grayscale' 1"),
        (4, 3, ONE, r'images have 4 channels, but the backbone 3 \(in_channels\)'),
    ],
)  # fmt: skip
def test_images_of_other_channels(channels, backbone, preprocessor, message):
    model = build_ebm(backbone=tiny_vit(in_channels=backbone), data_preprocessor=preprocessor)
    for inputs in (noise(channels), [noise(channels)] * 2):
        with pytest.raises(ValueError, match=message):
            run(model, inputs)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (noise(3, torch.float32, 4095), r'first images have torch\.float32 values up to 40\d\d.*value_range='),
        (noise(3, torch.uint16, 65535), r'first images have torch\.uint16 values up to 6'),
    ],
)
def test_images_in_other_units(images, message):
    with pytest.raises(ValueError, match=message):
        run(build_ebm(), images)


def test_images_of_training_are_checked_after_an_evaluation():
    model = build_ebm()
    run(model, noise(3))
    model.data_preprocessor(dict(inputs=[noise(3)] * 2, data_samples=None), False)
    with pytest.raises(ValueError, match='values up to 6'):
        model.data_preprocessor(dict(inputs=[noise(3, torch.uint16, 65535)] * 2, data_samples=None), True)


@pytest.mark.parametrize('normalised', [noise(3, torch.float32, 1), torch.randn(2, 3, 8, 8).clamp(-2, 2)])
def test_images_that_have_been_normalised_are_mentioned(normalised, warnings_logged):
    model = build_ebm()
    for _ in range(2):
        run(model, normalised)
    run(build_ebm(), noise(3, torch.float32, 255))
    (record,) = warnings_logged
    assert 'the first images have values of at most' in record and '0 to 255' in record


@pytest.mark.parametrize('mean_and_std', [(0.5, 0.5), (0.485, 0.229), (32768.0, 16384.0)])
def test_normalisation_in_other_units(mean_and_std):
    mean, std = mean_and_std
    with pytest.raises(
        ValueError, match=rf'data_preprocessor\.mean of up to {mean:g} and std of up to {std:g} are not'
    ):
        build_ebm(data_preprocessor=dict(mean=[mean] * 3, std=[std] * 3))


def test_no_normalisation_is_in_order():
    build_ebm(data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3))
    build_ebm(data_preprocessor=dict(mean=[0.0], std=[255.0]))


def sample(transform):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PackInputs()(transform(dict(img=image, sample_idx=0)))


@pytest.mark.parametrize(
    ('build', 'collate', 'message'),
    [
        (partial(MultiView, [[CorruptedPair(Grayscale())]], 2), default_collate, 'CorruptedPair is within MultiView'),
        (partial(CorruptedPair, Grayscale()), pseudo_collate, "set collate_fn=dict.type='default_collate'"),
    ],
)
def test_inputs_that_are_no_batches(build, collate, message):
    data = collate([sample(build())] * 2)
    with pytest.raises(ValueError, match=message):
        build_ebm().test_step(data)
    with pytest.raises(ValueError, match=message):
        build_ebm().train_step(data, OptimWrapper(SGD(build_ebm().parameters(), lr=0.1)))


def test_a_deviation_of_zero():
    with pytest.raises(ValueError, match=r'data_preprocessor\.std must be positive.*\[58\.0, 0\.0, 57\.0\]'):
        build_ebm(backbone=tiny_vit(), data_preprocessor=THREE | dict(std=[58.0, 0.0, 57.0]))
