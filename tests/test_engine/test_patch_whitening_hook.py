import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import nn

from mmebm.engine import PatchWhiteningHook
from mmebm.engine.hooks.patch_whitening_hook import whiten
from mmebm.models import EBMAlgorithm


def smooth_images(num_images=64, size=16):
    """Images (N, 3, H, W) whose neighbouring pixels are alike, with a mean of about 1."""
    coarse = torch.randn(num_images, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
    fine = torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, scale_factor=4, mode='bicubic') + 0.2 * fine + 1


def outputs(projection, images):
    """What an embedding gives of all patches, (N L, D)."""
    return projection(images).flatten(2).transpose(1, 2).flatten(0, 1).detach().double()


def embedding(channels, patch_size=2, **options):
    torch.manual_seed(2)
    return nn.Conv2d(3, channels, patch_size, stride=patch_size, **options)


def test_as_many_channels_as_values_give_uncorrelated_ones_of_equal_variance():
    images, projection = smooth_images(), embedding(12)
    before = outputs(projection, images).var(dim=0, correction=0).sum()
    whiten(projection, images, floor=1e-9)
    values = outputs(projection, images)
    covariance = values.T.cov(correction=0)
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(12).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(covariance, torch.eye(12).double() * before / 12, rtol=0, atol=1e-4 * before.item())


def test_more_channels_keep_the_distances_of_whitened_patches():
    images, projection = smooth_images(), embedding(20)
    whiten(projection, images, floor=1e-9)
    patches = F.unfold(images, 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    patches -= patches.mean(dim=0)
    mahalanobis = (patches @ torch.linalg.inv(patches.T.cov(correction=0)) * patches).sum(dim=1)
    ratios = outputs(projection, images).square().sum(dim=1) / mahalanobis
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-3, atol=0)


def test_fewer_channels_read_the_principal_directions():
    images, projection = smooth_images(), embedding(5)
    whiten(projection, images, floor=1e-9)
    patches = F.unfold(images, 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    _, directions = torch.linalg.eigh(patches.T.cov())
    weight = projection.weight.detach().flatten(1).double()
    assert (weight @ directions[:, :-5]).norm() < 1e-5 * weight.norm()


def test_the_floor_keeps_faint_directions_faint():
    """Of two independent values with variances 1 and 1e-4, the second remains 10 times smaller at a floor of 0.0098."""
    images = torch.randn(20_000, 1, 1, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.01])
    projection = nn.Conv2d(1, 2, (1, 2), stride=(1, 2))
    whiten(projection, images, floor=0.0098)
    variances = torch.linalg.eigvalsh(outputs(projection, images).T.cov())
    expected = (1e-4 / (1e-4 + 0.0098)) / (1 / (1 + 0.0098))
    assert variances[0] / variances[1] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('bias', [True, False])
def test_summed_variance_stays_as_it_was(bias):
    images, projection = smooth_images(), embedding(20, bias=bias)
    before = outputs(projection, images).var(dim=0).sum()
    whiten(projection, images, floor=0.01)
    torch.testing.assert_close(outputs(projection, images).var(dim=0).sum(), before, rtol=1e-4, atol=0)


class _Model(nn.Module):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.patch_embed = nn.Module()
        self.backbone.patch_embed.projection = embedding(12)
        self.backbone.init_cfg = init_cfg

    def data_preprocessor(self, data, training):
        return dict(inputs=data['inputs'])


def run_hook(model, images, iteration=0, load_from=None, floor=0.01):
    logger = MMLogger.get_instance('patch_whitening')
    runner = SimpleNamespace(model=model, iter=iteration, _load_from=load_from, logger=logger, train_dataloader=None)
    PatchWhiteningHook(floor).before_train_iter(runner, 0, dict(inputs=images))
    return model.backbone.patch_embed.projection


def test_hook_whitens_by_the_first_of_several_views():
    images, other = smooth_images(), torch.rand(4, 3, 16, 16)
    expected = embedding(12)
    whiten(expected, images, floor=0.02)
    for inputs in (images, [images, other]):
        projection = run_hook(_Model(), inputs, floor=0.02)
        torch.testing.assert_close(projection.weight, expected.weight, rtol=0, atol=0)
        torch.testing.assert_close(projection.bias, expected.bias, rtol=0, atol=0)


def test_hook_whitens_by_the_clean_images_of_a_pair():
    images, expected, model = smooth_images(), embedding(12), _Model()
    whiten(expected, images, floor=0.02)
    model.num_inputs = EBMAlgorithm.num_inputs
    projection = run_hook(model, [torch.rand(4, 3, 16, 16), images], floor=0.02)
    torch.testing.assert_close(projection.weight, expected.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('init_cfg', 'options'),
    [
        (None, dict(iteration=1)),
        (None, dict(load_from='epoch_1.pth')),
        (dict(type='Pretrained', checkpoint='epoch_1.pth'), {}),
        ([dict(type='TruncNormal', layer='Linear'), dict(type='Pretrained', checkpoint='epoch_1.pth')], {}),
    ],
)
def test_hook_leaves_trained_weights_alone(init_cfg, options):
    model = _Model(init_cfg)
    before = copy.deepcopy(model.state_dict())
    run_hook(model, smooth_images(), **options)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_hook_names_a_backbone_without_such_an_embedding():
    model = _Model()
    model.backbone.patch_embed = nn.Conv2d(3, 8, 4)
    with pytest.raises(TypeError, match='PatchWhiteningHook: Module has no convolution patch_embed.projection'):
        run_hook(model, smooth_images())


def test_equal_patches_are_refused():
    with pytest.raises(ValueError, match='in the first batch all of them are equal'):
        whiten(embedding(12), torch.full((2, 3, 16, 16), 0.7), floor=0.01)


def test_floor_must_be_positive():
    with pytest.raises(ValueError, match='floor must be positive, not 0'):
        PatchWhiteningHook(floor=0)
