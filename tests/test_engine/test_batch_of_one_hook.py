"""Batch normalisation of one value per channel is refused before an epoch that would end with it."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tiny import build_ebm
from torch import nn
from torch.utils.data import Dataset

from mmebm.engine.hooks.batch_of_one_hook import _watch
from mmebm.launch.preparation import prepare_training


class Numbers(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.full((3, 4, 4), float(index))


class Normalized(BaseModel):
    """Batch normalisation of maps, or of their means."""

    def __init__(self, pooled):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.bn = nn.BatchNorm2d(3)
        self.steps = 0

    def forward(self, inputs, mode='tensor'):
        self.steps += 1
        return dict(loss=self.bn(self.pool(torch.stack(inputs))).square().mean())


def train(tmp_path, size, pooled=True, batch_size=4, model=None, **loader):
    loader = dict(sampler=dict(type='DefaultSampler', shuffle=False)) | loader
    iterations = loader['sampler']['type'] == 'InfiniteSampler'
    runner = Runner(
        model=model or Normalized(pooled),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=Numbers(size), batch_size=batch_size, collate_fn=Inputs(), **loader),
        train_cfg=dict(by_epoch=False, max_iters=3) if iterations else dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='mmebm.BatchOfOneHook')],
        default_hooks=dict(checkpoint=None),
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )
    runner.train()
    return runner.model


class Inputs:
    def __call__(self, samples):
        return dict(inputs=samples)


@pytest.mark.parametrize(
    ('options', 'problem'),
    [
        (dict(size=9), 'of 9 images in batches of 4, the last batch is one image: set .*drop_last=True'),
        (dict(size=4, batch_size=1), 'train_dataloader.batch_size is 1: set a larger one, or'),
        (
            dict(size=4, batch_size=1, sampler=dict(type='InfiniteSampler')),
            'train_dataloader.batch_size is 1: set a larger',
        ),
    ],
)
def test_it_is_refused_in_the_first_step(tmp_path, options, problem):
    model = Normalized(pooled=True)
    with pytest.raises(ValueError, match=f'^bn: batch normalisation .*but {problem}'):
        train(tmp_path, model=model, **options)
    assert model.steps == 1


@pytest.mark.parametrize(
    ('options', 'steps'),
    [
        (dict(size=9, pooled=False), 3),  # a map of one image has a variance
        (dict(size=9, drop_last=True), 2),
        (dict(size=10), 3),
        (dict(size=9, sampler=dict(type='InfiniteSampler')), 3),
    ],
    ids=str,
)
def test_others_are_trained(tmp_path, options, steps):
    model = train(tmp_path, **options)
    assert model.steps == steps
    assert not model.bn._forward_pre_hooks


def test_every_training_gets_the_hook_once(tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='mmebm.Shapes', size=2, image_size=8))))
    for _ in range(2):
        prepare_training(cfg)
    hooks = ['BatchOfOneHook', 'BrokenImagesHook', 'PreemptionHook', 'ProvenanceHook']
    assert cfg.custom_hooks == [dict(type=f'mmebm.{hook}') for hook in hooks]


def test_a_network_of_small_images_is_named_before_its_gradients_are_checked():
    """ResNet at 32 pixels ends in maps of one."""
    model = build_ebm(dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), dict(in_channels=32)).train()
    handles = [*_watch(model, 'the last batch is one image')]
    with pytest.raises(ValueError, match=r'backbone\.layer4\.0\.bn1: .* but the last batch is one image'):
        model.loss([torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)])
    assert len(handles) == 20
