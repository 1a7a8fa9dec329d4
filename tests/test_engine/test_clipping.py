"""Clipping the gradients of generator and enhancer separately."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator, self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)


def wrapper_of(model, **options):
    config = dict(
        constructor='mmebm.ClipGeneratorApart', optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=1.0)
    )
    return build_optim_wrapper(model, config | options)


def with_gradients(model, generator, others):
    for name, p in model.named_parameters():
        p.grad = torch.full_like(p, generator if name.startswith('generator.') else others)
    return model


def norm(module):
    return torch.stack([p.grad.norm() for p in module.parameters()]).norm().item()


def test_each_part_has_its_norm():
    for others in (0.1, 100.0):  # the gradient of one part leaves that of the other alone
        model = with_gradients(Model(), 0.2, others)
        wrapper_of(model)._clip_grad()
        assert norm(model.generator) == pytest.approx(0.2 * 6**0.5)
        expected = min(1.0, others * 12**0.5)
        assert torch.tensor([norm(model.backbone), norm(model.head)]).norm().item() == pytest.approx(expected, rel=1e-4)


def test_the_logged_norm_is_that_of_all():
    model = with_gradients(Model(), 3.0, 4.0)
    wrapper = wrapper_of(model)
    wrapper._clip_grad()
    logged = wrapper.message_hub.get_scalar('train/grad_norm').current()
    assert logged == pytest.approx((6 * 9 + 12 * 16) ** 0.5)


def test_learning_rates_of_the_parts():
    model = Model()
    wrapper = wrapper_of(model, paramwise_cfg=dict(custom_keys=dict(generator=dict(lr_mult=0.5))))
    rates = {p: group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert {rates[p] for p in model.generator.parameters()} == {0.5}
    assert {rates[p] for p in model.backbone.parameters()} == {1.0}


def test_without_clipping_or_a_generator():
    assert wrapper_of(Model(), clip_grad=None).clip_grad_kwargs is None
    with pytest.raises(TypeError, match='ClipGeneratorApart: Linear has no generator'):
        wrapper_of(nn.Linear(2, 2))
