import math

import pytest
import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.selfsup import MAE, MFF, MAEViT, MFFViT, SimMIM, SimMIMSwinTransformer
from torch import nn

from mmebm.evaluation import KNNAccuracy, knn_top1, linear_top1, pooled_features
from mmebm.evaluation.frozen_accuracy import knn_classes
from mmebm.models import EnergyHead
from mmebm.registry import METRICS

TINY_VIT = dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=16, patch_size=4)


def clusters(num_per_class, distance, seed):
    """Three unit-variance clusters in 8 dimensions, `distance` from the origin along an axis each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(num_per_class)
    noise = torch.randn(len(labels), 8, generator=generator)
    return noise + distance * torch.eye(8)[labels], labels


@pytest.mark.parametrize('top1', [knn_top1, linear_top1])
def test_separable_clusters_are_classified_without_error(top1):
    assert top1(*clusters(100, 20, seed=0), *clusters(50, 20, seed=1)) == 100


@pytest.mark.parametrize('top1', [knn_top1, linear_top1])
def test_features_without_information_give_chance(top1):
    # 900 queries: the standard deviation of the accuracy at chance is 1.6 points.
    assert top1(*clusters(300, 0, seed=0), *clusters(300, 0, seed=1)) == pytest.approx(100 / 3, abs=5)


def test_knn_votes_are_weighted_by_similarity():
    # The query is at 0 degrees from one image of class 0, and at 60 degrees from two of class 1.
    bank = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.5, -math.sqrt(0.75)]])
    labels, query, query_label = torch.tensor([0, 1, 1]), torch.tensor([[3.0, 0.0]]), torch.tensor([0])
    # exp(1 / T) > 2 exp(0.5 / T) holds for T < 0.5 / ln 2 = 0.72.
    assert knn_top1(bank, labels, query, query_label, k=3, temperature=0.7) == 100
    assert knn_top1(bank, labels, query, query_label, k=3, temperature=0.75) == 0
    assert knn_top1(bank, labels, query, query_label, k=1, temperature=0.75) == 100


def test_knn_ignores_the_length_of_features():
    bank, queries = torch.tensor([[100.0, 0.0], [0.0, 0.1]]), torch.tensor([[0.2, 0.3]])
    assert knn_top1(bank, torch.tensor([0, 1]), queries, torch.tensor([1]), k=1) == 100


def test_linear_probe_is_blind_to_the_scale_of_features():
    # Only the second feature tells the classes apart, and it is tiny.
    features = torch.tensor([[50.0, 1e-6], [-50.0, 1e-6], [50.0, -1e-6], [-50.0, -1e-6]])
    labels = torch.tensor([0, 0, 1, 1])
    assert linear_top1(features, labels, features, labels) == 100


def test_a_small_bank_is_named():
    with pytest.raises(ValueError, match='k=20 .* bank of 3 images'):
        knn_top1(torch.eye(3), torch.arange(3), torch.eye(3), torch.arange(3))


def samples(features, labels, subset):
    return [
        dict(features=feature, gt_label=label[None], subset=subset)
        for feature, label in zip(features, labels, strict=True)
    ]


@pytest.mark.parametrize(
    ('cfg', 'key'),
    [
        (dict(type='mmebm.KNNAccuracy', k=5), 'frozen/knn_top1'),
        (dict(type='mmebm.LinearProbeAccuracy'), 'frozen/linear_top1'),
    ],
)
def test_metrics_tell_bank_from_queries(cfg, key):
    bank, labels = clusters(10, 20, seed=0)
    queries, true_labels = clusters(10, 20, seed=1)
    wrong_labels = torch.where(torch.arange(30) < 6, (true_labels + 1) % 3, true_labels)
    metric = METRICS.build(cfg)
    metric.process(None, samples(queries, wrong_labels, 'val') + samples(bank, labels, 'train'))
    assert metric.evaluate(60) == {key: pytest.approx(80)}


def test_what_is_missing_is_named():
    metric = KNNAccuracy(k=1)
    with pytest.raises(KeyError, match='gt_label'):
        metric.process(None, [dict(features=torch.ones(2), subset='train')])
    metric.process(None, samples(torch.eye(2), torch.arange(2), 'train'))
    with pytest.raises(ValueError, match='no queries'):
        metric.evaluate(2)
    metric.results.clear()
    metric.process(None, samples(torch.eye(2), torch.arange(2), 'val'))
    with pytest.raises(ValueError, match='no bank'):
        metric.evaluate(2)
    metric.results.clear()
    metric.process(None, samples(torch.eye(2) / 0, torch.arange(2), 'train'))
    with pytest.raises(ValueError, match='features of the bank are NaN or infinite'):
        metric.evaluate(2)


def unmasked_patch_mean(backbone, images):
    """What a plain ViT with the same weights gives, averaged over its patch tokens."""
    plain = VisionTransformer(**TINY_VIT, out_type='featmap')
    plain.load_state_dict(backbone.state_dict(), strict=False)
    plain.eval()
    return plain(images)[-1].mean(dim=(2, 3))


@pytest.mark.parametrize(
    ('algorithm', 'backbone'), [(MAE, MAEViT), (MFF, lambda **kwargs: MFFViT(out_indices=[0, 1], **kwargs))]
)
def test_masked_autoencoders_give_the_mean_of_all_patch_tokens(algorithm, backbone):
    model = algorithm(backbone=backbone(**TINY_VIT)).eval()
    images = torch.randn(3, 3, 16, 16)
    features = pooled_features(model, images)
    torch.testing.assert_close(features, unmasked_patch_mean(model.backbone, images))


def test_feature_maps_are_averaged_over_positions():
    arch = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])
    backbone = SimMIMSwinTransformer(
        arch=arch, img_size=16, out_indices=(0, 1), stage_cfgs=dict(block_cfgs=dict(window_size=2))
    )
    model = SimMIM(backbone=backbone).eval()
    images = torch.randn(3, 3, 16, 16)
    maps = model.backbone(images, None)[-1]
    assert maps.shape == (3, 16, 2, 2)
    torch.testing.assert_close(pooled_features(model, images), maps.flatten(2).mean(dim=2))


class Wrapped(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features = features
        self.backbone = nn.Identity()

    def extract_feat(self, images):
        return self.features


def test_other_outputs():
    images = torch.zeros(2, 3, 4, 4)
    vectors = torch.randn(2, 5)
    torch.testing.assert_close(pooled_features(Wrapped(vectors), images), vectors)
    torch.testing.assert_close(
        pooled_features(Wrapped((vectors[:, None], vectors.half())), images), vectors.half().float()
    )
    with pytest.raises(TypeError, match='torch.int64'):
        pooled_features(Wrapped(torch.ones(2, 5, dtype=torch.long)), images)
    with pytest.raises(TypeError, match='Identity has no extract_feat'):
        pooled_features(nn.Identity(), images)


def test_maps_with_the_channels_last_are_pooled_over_positions():
    model = nn.Module()
    model.backbone, model.head = nn.Identity(), EnergyHead(16)
    maps = torch.randn(2, 8, 4, 16)  # (N, H, W, C), as timm's Swin has them
    model.extract_feat = lambda images: (maps,)
    torch.testing.assert_close(pooled_features(model, torch.zeros(2, 3, 8, 8)), maps.mean(dim=(1, 2)))


@pytest.mark.parametrize('head', [None, EnergyHead(in_channels=[2, 3])])
def test_tensors_of_the_last_stage_are_concatenated(head):
    """As Conformer's map and class token."""
    model = nn.Module()
    model.backbone, model.head = nn.Identity(), head
    pooled, token = torch.arange(4.0).view(2, 2), torch.arange(6.0).view(2, 3)
    model.extract_feat = lambda images: ([torch.zeros(2, 7)], [pooled.view(2, 2, 1, 1).expand(2, 2, 4, 4), token])
    torch.testing.assert_close(pooled_features(model, torch.zeros(2, 3, 4, 4)), torch.cat([pooled, token], dim=1))


def test_a_stage_that_is_no_tensor_is_refused():
    model = nn.Module()
    model.extract_feat = lambda images: (dict(last=images),)
    with pytest.raises(TypeError, match='extract_feat returned a dict as the last stage'):
        pooled_features(model, torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize('temperature', [0.07, 0.01, 1e-6])
def test_knn_at_low_temperatures(temperature):
    """Where exp(similarity / temperature) is infinite, the nearest image still decides."""
    bank = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    queries = torch.tensor([[1.0, 0.31], [1.0, 0.21], [1.0, 0.0]])
    found = knn_classes(bank, torch.tensor([0, 1, 2]), queries, k=3, temperature=temperature)
    assert found.tolist() == [2, 1, 0]


@pytest.mark.parametrize('options', [dict(k=0), dict(k=1.5), dict(temperature=-0.07)])
def test_neighbours_that_cannot_be(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'knn_classes: {name} must be a'):
        knn_classes(torch.eye(3), torch.arange(3), torch.eye(3), **dict(k=1) | options)
