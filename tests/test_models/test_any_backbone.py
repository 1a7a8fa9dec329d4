"""Backbones of several packages, tiny: none is changed for pretraining, and all of each trains."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from mmebm.energy import energy_gradient

SIZE = 64
HF_VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE, patch_size=8)


def huggingface(model_type, **options):
    return dict(type='mmebm.HuggingFaceBackbone', config=dict(model_type=model_type, **options))


def timm(model_name, **options):
    return dict(type='TIMMBackbone', model_name=model_name, **options)


# The backbone, and the width of its last features.
BACKBONES = {
    'mmpretrain-vit': (
        dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
            img_size=SIZE,
            patch_size=8,
            out_type='raw',
        ),
        16,
    ),
    'mmpretrain-swin': (
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=8, depths=[2, 2, 1, 1], num_heads=[1, 2, 2, 4]),
            img_size=SIZE,
            window_size=4,
            pad_small_map=True,
            drop_path_rate=0.0,
        ),
        64,
    ),
    'mmpretrain-convnext': (dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])), 16),
    'mmpretrain-resnet': (dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), 32),
    'mmpretrain-mobilevit': (dict(type='MobileViT', arch='xx_small'), 320),  # convolution and attention
    'timm-vit': (timm('vit_tiny_patch16_224', embed_dim=16, depth=2, num_heads=2, img_size=SIZE, patch_size=8), 16),
    'timm-swin': (  # features (N, H, W, C)
        timm(
            'swin_tiny_patch4_window7_224',
            embed_dim=8,
            depths=(2, 2),
            num_heads=(1, 2),
            img_size=SIZE,
            window_size=4,
            drop_path_rate=0.0,
        ),
        16,
    ),
    'timm-convnext': (timm('convnext_atto', depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), 16),
    'timm-resnet': (timm('resnet18', features_only=True, channels=(8, 8, 16, 32)), 32),
    'huggingface-vit': (huggingface('vit', **HF_VIT, intermediate_size=32), 16),
    'huggingface-dinov2': (huggingface('dinov2', **HF_VIT), 16),
    'huggingface-swin': (
        huggingface(
            'swin', image_size=SIZE, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=4, drop_path_rate=0.0
        ),
        16,
    ),
    'huggingface-convnext': (huggingface('convnext', hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]), 16),
    'mmseg-mit': (
        dict(type='mmseg.MixVisionTransformer', embed_dims=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
        16,
    ),
    'mmdet-darknet': (dict(type='mmdet.CSPDarknet', widen_factor=0.125, deepen_factor=0.2), 128),
    'mmdet-resnet': (dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, norm_eval=False), 32),
}


@pytest.fixture(params=BACKBONES)
def name(request):
    return request.param


def build(name, **options):
    """The algorithm around a backbone, in float64.

    Every parameter is moved a little: what starts at zero (the last norm of a residual branch, a layer's scale) hides
    the parameters before it until the first step, and must not pass for dead.
    """
    backbone, in_channels = BACKBONES[name]
    head = dict(type='mmebm.EnergyHead', in_channels=in_channels, kind='quadratic', over='tokens')
    model = MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=backbone, head=head, **options))
    model.init_weights()
    model.double().train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def pair():
    clean = torch.randn(2, 3, SIZE, SIZE, dtype=torch.double)
    return [clean + torch.randn_like(clean), clean]


def test_every_parameter_gets_a_finite_gradient(name):
    model = build(name)
    loss = model(pair(), mode='loss')['loss']
    loss.backward()
    dead = [key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert dead == []
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_step_changes_the_loss_by_what_the_gradient_says(name):
    # Central differences along the gradient g: (loss(p + e g) - loss(p - e g)) / 2e = |g|^2.
    model, inputs = build(name), pair()
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(inputs, mode='loss')['loss'].backward()
    square = sum(p.grad.square().sum() for p in parameters)
    optimizer = torch.optim.SGD(parameters, lr=1e-8 / square.sqrt().item())

    optimizer.step()
    after = model(inputs, mode='loss')['loss'].detach()
    for group in optimizer.param_groups:
        group['lr'] *= -2  # back, and as far to the other side
    optimizer.step()
    before = model(inputs, mode='loss')['loss'].detach()
    assert after < before
    torch.testing.assert_close((before - after) / 2e-8, square.sqrt(), rtol=1e-4, atol=0)


def test_an_images_gradient_does_not_depend_on_its_batch(name):
    model, (images, _) = build(name), pair()
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        model.eval()  # in training BatchNorm couples the images of a batch
    together = energy_gradient(model.energy, images, create_graph=True)[1].detach()
    alone = torch.cat([energy_gradient(model.energy, image[None], create_graph=False)[1] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-8 * alone.abs().max().item())
