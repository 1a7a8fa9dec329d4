"""RankMe, alpha-ReQ and LiDAR against closed forms, and what they say of degenerate features."""

import math

import pytest
import torch
from mmengine.logging import MMLogger

from mmebm.evaluation import AlphaReQ, LiDAR, RankMe, alpha_req, lidar, rankme
from mmebm.registry import METRICS


def orthonormal(rows, columns, seed=0):
    """Columns (rows, columns) that are orthonormal and of mean 0."""
    generator = torch.Generator().manual_seed(seed)
    columns_and_one = torch.cat([torch.ones(rows, 1), torch.randn(rows, columns, generator=generator)], dim=1)
    return torch.linalg.qr(columns_and_one.double())[0][:, 1:]


def with_spectrum(eigenvalues, rows=300):
    """Features (rows, D) of mean 0 whose covariance has these eigenvalues up to a factor, in rotated axes."""
    axes = orthonormal(len(eigenvalues) + 1, len(eigenvalues))[: len(eigenvalues)]
    axes = torch.linalg.qr(axes)[0]
    return orthonormal(rows, len(eigenvalues)) * torch.as_tensor(eigenvalues).double().sqrt() @ axes.T


def crossed(means, offsets):
    """Views (N, 2 D, D): around each of the means (N, D), offsets (D,) along each axis, both ways."""
    steps = torch.diag(torch.as_tensor(offsets))
    return means[:, None] + torch.cat([steps, -steps])


def test_rankme_of_isotropic_features_is_their_dimension():
    assert rankme(7 * orthonormal(50, 24)) == pytest.approx(24, rel=1e-4)


def test_rankme_of_one_line_is_one_wherever_the_images_lie_on_it():
    line = torch.linspace(-1, 5, 40)[:, None] * torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert rankme(line) == pytest.approx(1, abs=1e-3)
    assert rankme(line[:1].expand(40, 16)) == pytest.approx(1, abs=1e-3)  # collapsed to a point


def test_rankme_is_of_singular_values_that_are_not_centred():
    # Singular values 3 and 1, shares 3/4 and 1/4; eigenvalues would have shares 9/10 and 1/10.
    features = orthonormal(30, 2) * torch.tensor([3.0, 1.0])
    assert rankme(features) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), rel=1e-5)
    shifted = features + torch.tensor([100.0, 0.0])  # the mean counts, and hides the rest
    assert rankme(shifted) < 1.1


def test_rankme_of_zeros_is_zero():
    assert rankme(torch.zeros(5, 3)) == 0


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0, 2.0])
def test_alpha_of_an_exact_power_law(alpha):
    features = with_spectrum(torch.arange(1, 121.0) ** -alpha)
    assert alpha_req(features) == pytest.approx(alpha, abs=1e-6)
    assert alpha_req(1000 * features + 3) == pytest.approx(alpha, abs=1e-6)


def test_alpha_is_of_the_eigenvalues_from_first_to_last():
    index = torch.arange(1, 121.0)
    broken = torch.where(index < 10, 50.0, torch.where(index <= 100, 1.0, 0.01) / index)
    assert alpha_req(with_spectrum(broken)) == pytest.approx(1, abs=1e-6)
    assert alpha_req(with_spectrum(broken), last=120) > 1.1
    assert alpha_req(with_spectrum(index[:30] ** -1.5), first=5) == pytest.approx(1.5, abs=1e-6)  # no more than 30


def test_each_octave_of_alphas_fit_counts_alike():
    # Slopes 0 up to the 16th eigenvalue and 2 beyond, over two octaves each: unweighted, the tail would rule.
    index = torch.arange(1, 257.0)
    features = with_spectrum(torch.where(index < 16, 1.0, (index / 16) ** -2.0), rows=600)
    assert alpha_req(features, first=4, last=64) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    'collapsed', [torch.full((200, 32), 3.7), torch.zeros(200, 32), torch.randn(200, 9) @ torch.randn(9, 32)]
)
def test_alpha_of_collapsed_features_is_not_a_number(collapsed):
    assert math.isnan(alpha_req(collapsed))


@pytest.mark.parametrize('num_directions', [1, 3, 8])
def test_lidar_counts_directions_in_which_images_differ_alike(num_directions):
    axes = torch.eye(8)[:num_directions]
    assert lidar(crossed(torch.cat([axes, -axes]), [0.1] * 8)) == pytest.approx(num_directions, rel=1e-4)


def test_lidar_weighs_directions_by_the_spread_of_the_views():
    # Variances between images 1 and 1; between views, 2 s^2 / 4 each: 1 and 4, plus delta: shares 4/5 and 1/5.
    means = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    views = crossed(means, [2**0.5, 8**0.5])
    shares = torch.tensor([1 / (1 + 0.5), 1 / (4 + 0.5)])
    shares /= shares.sum()
    assert lidar(views, delta=0.5) == pytest.approx(math.exp(-(shares * shares.log()).sum()), rel=1e-5)


def test_lidar_of_images_with_the_same_mean_is_zero():
    assert lidar(crossed(torch.ones(6, 4), [0.1] * 4)) == 0


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: rankme(torch.ones(1, 4)), r'rankme: features of shape \(1, 4\).*two or more images'),
        (lambda: rankme(torch.tensor([[1.0, 2], [3, math.nan]])), 'rankme: features are NaN or infinite'),
        (lambda: alpha_req(torch.randn(200, 32).fill_(math.inf)), 'alpha_req: features are NaN or infinite'),
        (lambda: alpha_req(torch.randn(8, 32)), 'alpha_req: no eigenvalues 10 to 100 of 8 images with 32 features'),
        (lambda: alpha_req(torch.randn(99, 8)), 'set `first` below 8'),
        (lambda: alpha_req(torch.randn(99, 32), first=0), 'no eigenvalues 0 to'),
        (lambda: lidar(torch.randn(9, 4)), r'expected \(N, V, D\)'),
        (lambda: lidar(torch.randn(9, 1, 4)), r'1 view of each image.*num_views=8'),
        (lambda: lidar(torch.randn(9, 1, 4).expand(9, 3, 4)), 'must be corrupted differently'),
        (lambda: lidar(torch.randn(9, 2, 4).fill_(math.nan)), 'lidar: features are NaN'),
        (lambda: LiDAR(delta=0), 'delta=0'),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def samples(features, **fields):
    return [dict(features=row, subset='test', **{key: value[i] for key, value in fields.items()})
            for i, row in enumerate(features)]  # fmt: skip


def test_as_registered_metrics_of_samples_but_the_bank():
    features = orthonormal(300, 24).float()
    views = crossed(torch.cat([torch.eye(24), -torch.eye(24)])[torch.arange(300) % 48], [0.1] * 24)
    bank = [dict(features=torch.ones(24), subset='train', gt_label=0)]
    found = {}
    for name in ('RankMe', 'AlphaReQ', 'LiDAR'):
        metric = METRICS.build(dict(type=f'mmebm.{name}'))
        metric.process(None, bank + samples(features, views=views))
        found |= metric.evaluate(301)
    assert found['frozen/rankme'] == pytest.approx(24, rel=1e-3)
    assert found['frozen/alpha_req'] == pytest.approx(0, abs=1e-5)
    assert found['frozen/lidar'] == pytest.approx(24, rel=0.01)


def test_missing_views_and_samples_are_named():
    with pytest.raises(KeyError, match=r"LiDAR needs 'views'.*num_views=8.*without a `bank`"):
        LiDAR().process(None, samples(torch.ones(2, 3)))
    with pytest.raises(ValueError, match='RankMe: no features'):
        RankMe().compute_metrics([])


def test_too_few_images_are_said(capsys):
    MMLogger.get_instance('label_free')
    metric = AlphaReQ(first=2)
    metric.process(None, samples(torch.randn(6, 8, generator=torch.Generator().manual_seed(0))))
    metric.compute_metrics(metric.results)
    assert 'AlphaReQ: 6 images bound the number of dimensions below that of the features, 8' in capsys.readouterr().out
