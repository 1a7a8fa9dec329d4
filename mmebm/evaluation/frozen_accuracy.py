"""Classification of frozen features by kNN and by a linear probe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize

from mmebm.option_check import check_positive, check_whole_numbers
from mmebm.registry import METRICS


def knn_top1(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> float:
    """Top-1 accuracy of the weighted k nearest neighbours, in percent.

    Args:
        bank: Features (B, D) of B >= k images.
        bank_labels: Class indices (B,), from 0.
        queries: Features (N, D).
        query_labels: Class indices (N,).
        k: See :func:`knn_classes`.
        temperature: See :func:`knn_classes`.

    Raises:
        ValueError: The bank holds fewer than k images.
    """
    return top1(knn_classes(bank, bank_labels, queries, k, temperature), query_labels)


def knn_classes(bank: Tensor, bank_labels: Tensor, queries: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Classes (N,) by the weighted k nearest neighbours.

    Features are L2-normalised; each of the k bank images most similar to a query votes for its class with weight
    exp(cosine similarity / temperature) (Wu et al., arXiv 1805.01978).

    Args:
        bank: Features (B, D) of B >= k images.
        bank_labels: Class indices (B,), from 0.
        queries: Features (N, D).
        k: Number of neighbours.
        temperature: Divisor of the cosine similarity, > 0.

    Raises:
        ValueError: The bank holds fewer than k images, or k or the temperature is not positive.
    """
    check_whole_numbers('knn_classes', k=k)
    check_positive('knn_classes', temperature=temperature)
    if len(bank) < k:
        raise ValueError(f'k={k} nearest neighbours of a bank of {len(bank)} images: enlarge the bank or lower k')
    bank = normalize(bank.float(), dim=1)
    num_classes = int(bank_labels.max()) + 1
    classes = []
    for chunk in queries.float().split(1024):
        similarity, neighbours = (normalize(chunk, dim=1) @ bank.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(chunk), num_classes)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()  # of the nearest 1, so that none is infinite
        votes.scatter_add_(1, bank_labels[neighbours], weights)
        classes.append(votes.argmax(dim=1))
    return torch.cat(classes)


def linear_top1(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, c: float = 1.0, max_iter: int = 1000
) -> float:
    """Top-1 accuracy of a linear probe, in percent.

    Args:
        bank: Features (B, D).
        bank_labels: Class indices (B,), of at least two classes.
        queries: Features (N, D).
        query_labels: Class indices (N,).
        c: See :func:`linear_classes`.
        max_iter: See :func:`linear_classes`.
    """
    return top1(linear_classes(bank, bank_labels, queries, c, max_iter), query_labels)


def linear_classes(bank: Tensor, bank_labels: Tensor, queries: Tensor, c: float = 1.0, max_iter: int = 1000) -> Tensor:
    """Classes (N,) by a linear probe.

    Multinomial logistic regression (scikit-learn, L-BFGS, L2 penalty |w|^2 / 2 next to c times the summed loss, in
    float64) on features standardised by the bank's mean and standard deviation, fitted on the bank: deterministic, no
    augmentation. Meant for banks of up to some ten thousand images and some hundred classes.

    Args:
        bank: Features (B, D).
        bank_labels: Class indices (B,), of at least two classes.
        queries: Features (N, D).
        c: Inverse strength of the L2 penalty.
        max_iter: Maximum number of L-BFGS iterations.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter))
    probe.fit(bank.double().numpy(), bank_labels.numpy())
    return torch.from_numpy(probe.predict(queries.double().numpy()))


def top1(classes: Tensor, labels: Tensor) -> float:
    """Share of the predicted classes (N,) that are the labels (N,), in percent."""
    return 100 * int((classes == labels).sum()) / len(labels)


class FrozenFeatureMetric(BaseMetric):
    """Gathers labelled features: the bank (``subset='train'``) and the queries (any other ``subset``).

    Samples need ``features`` (D,), ``gt_label`` (one class index) and ``subset``.
    """

    default_prefix = 'frozen'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the features of a batch.

        Raises:
            KeyError: A sample lacks ``features``, ``gt_label`` or ``subset``.
        """
        for sample in data_samples:
            missing = [field for field in ('features', 'gt_label', 'subset') if field not in sample]
            if missing:
                raise KeyError(f'{type(self).__name__} needs {missing} in each sample, which has {sorted(sample)}')
            # A copy: a view would be pickled, for other processes, with its whole batch.
            features = sample['features'].detach().float().cpu().numpy().copy()
            label = int(torch.as_tensor(sample['gt_label']).item())
            self.results.append((features, label, sample['subset'] == 'train'))

    def bank_and_queries(self, results: list) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bank features (B, D) and labels (B,), query features (N, D) and labels (N,), on the CPU.

        Raises:
            ValueError: Bank or queries are empty, or a feature is not finite.
        """
        tensors = []
        for name, is_bank in (('bank', True), ('queries', False)):
            rows = [(features, label) for features, label, in_bank in results if in_bank == is_bank]
            if not rows:
                raise ValueError(
                    f"{type(self).__name__}: no {name}; the samples with subset='train' are the labelled bank, "
                    'the others the queries'
                )
            features = torch.from_numpy(np.stack([features for features, _ in rows]))
            if not features.isfinite().all():
                raise ValueError(
                    f'{type(self).__name__}: features of the {name} are NaN or infinite: did training diverge?'
                )
            tensors += [features, torch.tensor([label for _, label in rows])]
        return tuple(tensors)


@METRICS.register_module()
class KNNAccuracy(FrozenFeatureMetric):
    """``frozen/knn_top1``: see :func:`knn_top1`.

    Args:
        k: Number of neighbours.
        temperature: Divisor of the cosine similarity, > 0.
        collect_device: Device for gathering the results of several processes, 'cpu' or 'gpu'.
        prefix: Replaces 'frozen'.
    """

    def __init__(
        self, k: int = 20, temperature: float = 0.07, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.k = k
        self.temperature = temperature

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Accuracy in percent."""
        return dict(knn_top1=knn_top1(*self.bank_and_queries(results), k=self.k, temperature=self.temperature))


@METRICS.register_module()
class LinearProbeAccuracy(FrozenFeatureMetric):
    """``frozen/linear_top1``: see :func:`linear_top1`.

    Args:
        c: Inverse strength of the L2 penalty.
        max_iter: Maximum number of L-BFGS iterations.
        collect_device: Device for gathering the results of several processes, 'cpu' or 'gpu'.
        prefix: Replaces 'frozen'.
    """

    def __init__(
        self, c: float = 1.0, max_iter: int = 1000, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.c = c
        self.max_iter = max_iter

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Accuracy in percent."""
        return dict(linear_top1=linear_top1(*self.bank_and_queries(results), c=self.c, max_iter=self.max_iter))
