"""Quality of frozen features without labels, from their spectra: RankMe, alpha-ReQ and LiDAR.

All are computed in float64. What they are worth for restoration was measured: docs/results.md.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmebm.registry import METRICS

EPSILON = 1e-7  # added to each share of a spectrum, as in RankMe's formula
NOISE = 1e-6  # share of the features' size below which float32 features carry nothing


def rankme(features: Tensor) -> float:
    """Effective number of dimensions of features, as in RankMe (Garrido et al., arXiv 2210.02885).

    exp(-sum p log p), where p are the singular values of the features, not centred, divided by their sum, plus 1e-7.
    Isotropic features give D, those on one line through the origin 1; it cannot exceed the smaller of N and D.

    Args:
        features: Features (N, D) of N >= 2 images.

    Returns:
        1 to min(N, D); 0 if all features are zero.

    Raises:
        ValueError: There are fewer than two images, or a feature is not finite.
    """
    return _effective_rank(torch.linalg.svdvals(_checked(features, 'rankme', dims=2)))


def alpha_req(features: Tensor, first: int = 10, last: int = 100) -> float:
    """Exponent alpha of the power law j^-alpha of a covariance's eigenvalues (alpha-ReQ, Agrawal et al., NeurIPS 2022).

    The negated slope of log eigenvalue over log j, by least squares with weights 1 / j, so that each octave counts
    alike. The first eigenvalues, which follow no power law, are left out. By the paper, values near 1 are best: less
    is noise in many dimensions, more is a collapse to few.

    Args:
        features: Features (N, D); they are centred.
        first: The first eigenvalue of the fit, counted from 1.
        last: The last one; fewer are fitted if there are no more that float32 features carry.

    Returns:
        The exponent; NaN if the features have collapsed to fewer than ``first + 1`` dimensions.

    Raises:
        ValueError: N or D do not suffice for ``first``, or a feature is not finite.
    """
    features = _checked(features, 'alpha_req', dims=2)
    largest = min(len(features) - 1, features.shape[1], last)
    if not 1 <= first < largest:
        raise ValueError(
            f'alpha_req: no eigenvalues {first} to {last} of {len(features)} images with {features.shape[1]} features, '
            f'which have {min(len(features) - 1, features.shape[1])}: give more images, or set `first` below {largest}'
        )
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    values = values[values > NOISE * torch.linalg.norm(features)][:last]
    if len(values) <= first:
        return float('nan')
    index = np.arange(first, len(values) + 1)
    eigenvalues = values[first - 1 :].square().numpy()
    slope, _ = np.polyfit(np.log(index), np.log(eigenvalues), deg=1, w=index**-0.5)  # squared by polyfit
    return float(-slope)


def lidar(views: Tensor, delta: float = 1e-4) -> float:
    """Effective number of dimensions in which images differ more than their views (LiDAR, arXiv 2312.04000).

    As :func:`rankme`'s, of the eigenvalues of W^-1/2 B W^-1/2: B is the covariance of the images' means over their
    views, W that of views about their image's mean, plus ``delta`` on the diagonal. A linear discriminant analysis in
    which each image is a class. Views are corruptions of an image here.

    Args:
        views: Features (N, V, D) of V >= 2 views of N >= 2 images.
        delta: > 0, in squared units of the features, which are not scaled.

    Returns:
        1 to min(N - 1, D); 0 if the means of all images are the same.

    Raises:
        ValueError: There are fewer than two images or views, the views of all images are the same, or a feature is not
            finite.
    """
    views = _checked(views, 'lidar', dims=3)
    if views.shape[1] < 2:
        raise ValueError(
            f'lidar: {views.shape[1]} view of each image; give two or more: CorruptedPair(..., num_views=8)'
        )
    within = (views - views.mean(dim=1, keepdim=True)).flatten(0, 1)
    means = views.mean(dim=1) - views.mean(dim=(0, 1))
    smallest = NOISE * torch.linalg.norm(views)
    if torch.linalg.norm(means) <= smallest:
        return 0.0
    if torch.linalg.norm(within) <= smallest:
        raise ValueError('lidar: all views of each image have the same features; they must be corrupted differently')
    scatter = within.T @ within / len(within) + delta * torch.eye(views.shape[2], dtype=views.dtype)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), means.T, upper=False)
    return _effective_rank(torch.linalg.svdvals(whitened).square())


def _effective_rank(values: Tensor) -> float:
    """The exponential of the entropy of values (D,) >= 0; 0 if all are 0."""
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum() + EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


def _checked(features: Tensor, name: str, dims: int) -> Tensor:
    """The features in float64, if there are enough and all are finite."""
    if features.dim() != dims or len(features) < 2:
        expected = '(N, D)' if dims == 2 else '(N, V, D)'
        raise ValueError(
            f'{name}: features of shape {tuple(features.shape)}; expected {expected} of two or more images'
        )
    if not features.isfinite().all():
        raise ValueError(f'{name}: features are NaN or infinite: did training diverge?')
    return features.double()


class LabelFreeMetric(BaseMetric):
    """Gathers features of images that need no labels: of all samples but the bank (``subset='train'``).

    Args:
        collect_device: Device for gathering the results of several processes, 'cpu' or 'gpu'.
        prefix: Replaces 'frozen'.
    """

    default_prefix = 'frozen'
    field = 'features'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the features of a batch.

        Raises:
            KeyError: A sample lacks ``features``, or ``views``.
        """
        for sample in data_samples:
            if sample.get('subset') == 'train':
                continue
            if self.field not in sample:
                raise KeyError(
                    f'{type(self).__name__} needs {self.field!r} in each sample, which has {sorted(sample)}; views '
                    'come from CorruptedPair(..., num_views=8) in the pipeline of `queries`, without a `bank`'
                )
            # A copy: a view would be pickled, for other processes, with its whole batch.
            self.results.append(sample[self.field].detach().float().cpu().numpy().copy())

    def stacked(self, results: list) -> Tensor:
        """Features (N, D) or views (N, V, D); says if there are fewer images than features."""
        if not results:
            raise ValueError(f"{type(self).__name__}: no features, since all samples have subset='train'")
        features = torch.from_numpy(np.stack(results))
        if len(features) <= features.shape[-1]:
            print_log(
                f'{type(self).__name__}: {len(features)} images bound the number of dimensions below that of the '
                f'features, {features.shape[-1]}; give several times as many images',
                logger='current',
                level=logging.WARNING,
            )
        return features


@METRICS.register_module()
class RankMe(LabelFreeMetric):
    """``frozen/rankme``: see :func:`rankme`."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        """An effective number of dimensions."""
        return dict(rankme=rankme(self.stacked(results)))


@METRICS.register_module()
class AlphaReQ(LabelFreeMetric):
    """``frozen/alpha_req``: see :func:`alpha_req`.

    Args:
        first: The first eigenvalue of the fit, counted from 1.
        last: The last one.
        collect_device: Device for gathering the results of several processes, 'cpu' or 'gpu'.
        prefix: Replaces 'frozen'.
    """

    def __init__(
        self, first: int = 10, last: int = 100, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device, prefix)
        self.first = first
        self.last = last

    def compute_metrics(self, results: list) -> dict[str, float]:
        """An exponent."""
        return dict(alpha_req=alpha_req(self.stacked(results), self.first, self.last))


@METRICS.register_module()
class LiDAR(LabelFreeMetric):
    """``frozen/lidar``: see :func:`lidar`.

    Args:
        delta: > 0, in squared units of the features.
        collect_device: Device for gathering the results of several processes, 'cpu' or 'gpu'.
        prefix: Replaces 'frozen'.

    Raises:
        ValueError: ``delta`` is not above 0.
    """

    field = 'views'

    def __init__(self, delta: float = 1e-4, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        if not delta > 0:
            raise ValueError(f'LiDAR: delta={delta}, expected a number above 0')
        super().__init__(collect_device, prefix)
        self.delta = delta

    def compute_metrics(self, results: list) -> dict[str, float]:
        """An effective number of dimensions."""
        return dict(lidar=lidar(self.stacked(results), self.delta))
