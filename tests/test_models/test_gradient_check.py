"""Backbones whose second derivatives are wrong, or do not exist, are refused on the first batch; others are not."""

import random
import warnings

import pytest
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from tiny import build_ebm, grouped, tiny_vit
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

WIDTH = 8


def pair(num_images=2, size=16):
    clean = torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(1))
    return [clean.flip(2), clean]


class Conv(BaseModule):
    """Two layers, and what is done between them, which names the tensors before and after the first activation."""

    def __init__(self, between):
        super().__init__()
        self.between = between
        self.first = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.middle = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.GELU())
        self.last = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x):
        return (self.last(self.between(self.middle, self.first(x))),)


def build(between, head=None, **options):
    torch.manual_seed(0)
    head = dict(type='mmebm.EnergyHead', in_channels=WIDTH) | (head or {})
    config = dict(type='mmebm.EBMAlgorithm', backbone=Conv(between), head=head, step_size=1.0)
    return MODELS.build(config | grouped(options)).train()


class Constant(torch.autograd.Function):
    """A sigmoid whose derivative is kept as a constant."""

    @staticmethod
    def forward(ctx, x):
        y = x.sigmoid()
        ctx.derivative = y * (1 - y)
        return y

    @staticmethod
    def backward(ctx, grad_out):
        return grad_out * ctx.derivative


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        return grad_out * ctx.saved_tensors[0].exp()


class Right(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, grad_out):
        return grad_out * ctx.saved_tensors[0].exp()


def without_gradients(middle, x):
    with torch.no_grad():
        return middle(x)


def fused_attention(middle, x):
    tokens = x.flatten(2).mT[:, None]
    out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(tokens, tokens, tokens)[0]
    return out[:, 0].mT.reshape(x.shape)


def changed_in_place(middle, x):
    y = x.exp()
    square = y * y
    return square + y.add_(1)


WRONG = {
    'constant derivative': (lambda f, x: Constant.apply(f(x)), 'wrong for .*Found .*test_gradient_check.Constant in b'),
    'once differentiable': (lambda f, x: Once.apply(f(x)), 'Found .*test_gradient_check.Once in backbone'),
    'detached branch': (lambda f, x: x + f(x.detach()), 'wrong for .*backbone.middle.0.weight.*without .detach'),
    'item': (lambda f, x: f(x) * x.abs().max().item(), 'wrong for backbone.first.weight'),
    'data': (lambda f, x: f(x) / x.data.norm(), 'second derivatives of the energy are wrong'),
    'detached': (lambda f, x: f(x.detach()), 'does not depend on the images. Found a layer .*: backbone'),
    'no_grad': (without_gradients, 'does not depend on the images. Found a layer .*: backbone'),
    'norm of zeros': (lambda f, x: f(x) + normalize(0 * x), 'not finite or wrong for backbone.first'),
    're-entrant checkpoint': (
        lambda f, x: checkpoint(f, x, use_reentrant=True),
        'cannot be differentiated twice .*Found .*torch.utils.checkpoint.CheckpointFunction in backbone',
    ),
    'fused operator': (fused_attention, 'cannot be differentiated twice .*flash_attention.* is not implemented'),
    'changed in place': (changed_in_place, 'cannot be differentiated twice .*modified by an inplace operation'),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_gives_wrong_second_derivatives_is_named(name):
    between, message = WRONG[name]
    with pytest.raises(RuntimeError, match=f'EBMAlgorithm: .*{message}'):
        build(between).loss(pair())


@pytest.mark.parametrize('options', [dict(micro_batch=1), dict(low_memory=True), dict(nce_weight=0.1)], ids=str)
def test_every_way_to_compute_a_step_is_checked(options):
    with pytest.raises(RuntimeError, match='wrong for .*Constant'):
        build(WRONG['constant derivative'][0], **options).loss(pair())


def test_mmpretrains_reversible_vit_is_refused_until_its_own_backward_pass_is_off():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    for options in (dict(), dict(no_custom_backward=True)):
        backbone = dict(type='RevVisionTransformer', arch=arch, img_size=16, patch_size=8)
        model = build_ebm(backbone | options, dict(in_channels=32)).train()
        if options:
            model.loss(pair())['loss'].backward()
            assert all(p.grad is not None for p in model.parameters())
        else:
            with pytest.raises(RuntimeError, match='RevBackProp in backbone.*no_custom_backward=True'):
                model.loss(pair())


def test_an_energy_that_changes_its_images_in_place_is_refused():
    class InPlace(Conv):
        def forward(self, x):
            return super().forward(x.mul_(2))

    model = build(None)
    model.backbone = InPlace(lambda f, x: f(x))
    with pytest.raises(RuntimeError, match='cannot be differentiated .*in-place operation'):
        model.loss(pair())


def noisy(middle, x):
    return middle(x) * random.random() * torch.rand(())


RIGHT = {
    'own function': lambda f, x: Right.apply(f(x)),
    'checkpoint': lambda f, x: checkpoint(f, x, use_reentrant=False),
    'ReLU': lambda f, x: f(x).relu() + x.abs(),
    'rounded to float32': lambda f, x: f(x).float().softmax(dim=1).to(x.dtype),
    'random': noisy,
    'in place': lambda f, x: f(x).mul_(2).add_(1),
}


@pytest.mark.parametrize('name', RIGHT)
def test_what_is_right_passes_without_a_word(name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build(RIGHT[name]).loss(pair())


def test_a_group_norm_of_channels_last_images_behind_frozen_layers_does_not_crash():
    """Such as in mmpretrain's PoolFormer; torch crashes if asked for its weights alone."""
    model = build(lambda f, x: f(x))
    model.backbone.first.requires_grad_(False)
    model.backbone.middle.insert(0, nn.GroupNorm(1, WIDTH))
    inputs = [images.contiguous(memory_format=torch.channels_last) for images in pair(size=64)]
    assert model.loss(inputs)['loss'].isfinite()


def test_statistics_that_a_forward_pass_moves_do_not_disturb():
    """Spectral normalisation moves its vectors in every forward pass."""
    model = build(lambda f, x: f(x))
    nn.utils.parametrizations.spectral_norm(model.backbone.last)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.loss(pair())


def test_what_cannot_be_checked_is_said():
    """A matrix of float32 cannot be multiplied in float64."""
    with pytest.warns(UserWarning, match='second derivatives are not checked, .* in float64: expected'):
        build(lambda f, x: f(x) @ torch.eye(4)).loss(pair())


def test_other_errors_are_raised_as_they_are():
    with pytest.raises(RuntimeError, match=r'^shapes do not fit$'):
        build(fail).loss(pair())


def fail(middle, x):
    raise RuntimeError('shapes do not fit')


@pytest.mark.parametrize(
    'backbone',
    [tiny_vit(drop_path_rate=0.5), dict(type='ResNet', depth=18, base_channels=4, stem_channels=4)],
    ids=lambda backbone: backbone['type'],
)
def test_the_check_leaves_no_trace(backbone):
    torch.manual_seed(0)
    size = 8 if backbone['type'] == 'VisionTransformer' else 32
    model = build_ebm(backbone, dict(in_channels=16 if size == 8 else 32), step_size=1.0).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = pair(size=size)
    before = torch.get_rng_state(), random.getstate()
    batch = model.patch_choice(*inputs)
    model.training_step.check(type(model)._energy_fn, batch.corrupted, batch)
    assert torch.get_rng_state().equal(before[0]) and random.getstate() == before[1]
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_parameters_without_a_gradient_are_named():
    """A linear energy knows nothing of shifts of the last features."""
    with pytest.warns(UserWarning, match='no gradient for backbone.last.bias: .*`frozen`'):
        build(lambda f, x: f(x), dict(kind='linear')).loss(pair())


def test_patch_ebm_is_checked_too():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    sizes = dict(patch_size=4)
    model = MODELS.build(
        dict(
            type='mmebm.PatchEBM',
            backbone=dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=16, out_type='raw', **sizes),
            head=dict(
                type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), embed_dims=16, num_heads=2, **sizes
            ),
        )
    )
    model.head.norm = Wrong()
    with pytest.raises(RuntimeError, match=r'PatchEBM: .* wrong for .*Constant in head\.norm'):
        model.loss(pair()[1:])


class Wrong(nn.Module):
    def forward(self, x):
        return Constant.apply(x)
