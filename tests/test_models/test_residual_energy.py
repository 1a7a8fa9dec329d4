"""The energy of an image beside its prediction."""

import pytest
import torch

from mmebm.models import EnergyClassifier, ResidualEnergyHead


def head(**options):
    torch.manual_seed(0)
    return ResidualEnergyHead(4, patch_size=2, **options)


def test_closed_form():
    """A map whose two positions predict constant patches."""
    energy = head(image_channels=1)
    with torch.no_grad():
        energy.energies[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0]] * 4))
        energy.energies[0].bias.fill_(0.5)
    features = torch.zeros(1, 4, 1, 2)
    features[0, 0, 0] = torch.tensor([1.0, -2.0])
    images = torch.zeros(1, 1, 2, 4)
    images[..., 2:] = 1.0
    # The left patch is 0 and predicted as 1.5, the right one is 1 and predicted as -1.5; four pixels each.
    torch.testing.assert_close(energy(features, images), torch.tensor([(4 * 1.5**2 + 4 * 2.5**2) / 2]))


def test_of_a_perfect_prediction_there_is_none_and_a_step_of_one_goes_to_the_prediction():
    energy, images = head(), torch.randn(2, 3, 4, 4, requires_grad=True)
    features = torch.randn(2, 1 + 4, 4)  # behind a class token; that do not depend on the image
    predicted = torch.nn.functional.fold(
        energy.energies[0](features[:, 1:]).transpose(1, 2), (4, 4), kernel_size=2, stride=2
    )
    torch.testing.assert_close(energy(features, predicted), torch.zeros(2))
    (gradient,) = torch.autograd.grad(energy(features, images).sum(), images)
    torch.testing.assert_close(images - gradient, predicted)


def test_of_some_patches():
    energy, images, features = head(), torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4)
    whole = sum(energy(features[:, [i]], images, torch.full((2, 1), i)) for i in range(4))
    torch.testing.assert_close(whole, energy(features, images))


def test_a_wrong_patch_size_is_named():
    with pytest.raises(ValueError, match='1 features for 4 patches of 2 pixels'):
        head()(torch.randn(2, 4), torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match='17 features for 4 patches of 2 pixels'):
        head()(torch.randn(2, 17, 4), torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match='6 features for 4 patches of 2 pixels'):  # a map, which has no extra tokens
        head()(torch.randn(2, 4, 2, 3), torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r'image size \(4, 5\) is not a multiple of the patch size 2'):
        head()(torch.randn(2, 4, 2, 3), torch.randn(2, 3, 4, 5))


def test_beside_a_classifier():
    torch.manual_seed(0)
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    vit = dict(arch=arch, img_size=16, patch_size=4)
    model = EnergyClassifier(
        energy_head=dict(type='mmebm.ResidualEnergyHead', in_channels=16, patch_size=4),
        backbone=dict(type='mmpretrain.VisionTransformer', out_type='featmap', frozen_stages=1, **vit),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', in_channels=16, num_classes=2),
    ).eval()
    images = torch.randn(2, 3, 16, 16)
    found = torch.stack([sample.energy for sample in model(images, mode='predict')])
    torch.testing.assert_close(found, model.energy_head(model.backbone(images), images))
