"""Statistics of batch normalisation after a pretraining."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmebm.engine.hooks import CleanBatchNormHook

RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))


@pytest.fixture
def model():
    head = dict(type='mmebm.EnergyHead', in_channels=64)
    return MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=RESNET, head=head, step_size=1.0)).train()


def batches(number):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        clean = torch.rand(4, 3, 32, 32, generator=generator)
        yield dict(inputs=[torch.zeros_like(clean), clean], data_samples=[])


def finish_epoch(hook, model, epoch, max_epochs=20):
    loop = SimpleNamespace(stop_training=False)
    hook.after_train_epoch(
        SimpleNamespace(
            model=model,
            epoch=epoch,
            max_epochs=max_epochs,
            train_dataloader=batches(5),
            _train_loop=loop,
            train_loop=loop,
        )
    )


def test_they_are_those_of_clean_images(model):
    norm = model.backbone.bn1
    for batch in batches(3):
        model.loss(batch['inputs'])
    assert norm.running_mean.abs().max() < 1e-6  # black images
    finish_epoch(CleanBatchNormHook(num_batches=2), model, epoch=19)
    with torch.no_grad():
        features = [model.backbone.conv1(batch['inputs'][1]) for batch in batches(2)]
    torch.testing.assert_close(norm.running_mean, sum(f.mean(dim=(0, 2, 3)) for f in features) / 2)
    variances = [f.transpose(0, 1).flatten(1).var(dim=1) for f in features]
    torch.testing.assert_close(norm.running_var, sum(variances) / 2)
    assert norm.momentum == 0.1 and model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_that_read_no_clean_image_keep_theirs():
    backbone = RESNET | dict(frozen_stages=1)
    head = dict(type='mmebm.EnergyHead', in_channels=64)
    model = MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=backbone, head=head, step_size=1.0)).train()
    model.head.extra = nn.BatchNorm1d(2)
    for norm in (model.backbone.bn1, model.head.extra):
        norm.running_mean.fill_(3.0)
        norm.num_batches_tracked.fill_(7)
    finish_epoch(CleanBatchNormHook(num_batches=2), model, epoch=19)
    for norm in (model.backbone.bn1, model.head.extra):
        assert (norm.running_mean == 3).all() and norm.num_batches_tracked == 7
    assert model.backbone.layer2[0].bn1.num_batches_tracked == 2


def test_every_tenth_epoch_and_the_last(model):
    before = copy.deepcopy(model.state_dict())
    for epoch, is_measured in ((0, False), (8, False), (9, True), (13, True)):
        model.load_state_dict(before)
        finish_epoch(CleanBatchNormHook(num_batches=1), model, epoch, max_epochs=14)
        assert (not torch.equal(model.backbone.bn1.running_mean, before['backbone.bn1.running_mean'])) == is_measured


@pytest.mark.parametrize('options', [dict(interval=0), dict(num_batches=0)])
def test_refuses_less_than_one(options):
    with pytest.raises(ValueError, match='must be a whole number of at least 1'):
        CleanBatchNormHook(**options)
