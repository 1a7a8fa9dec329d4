"""Frozen features: extraction from a model, and classification by kNN and by a linear probe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.evaluator import BaseMetric
from mmpretrain.models import TwoNormDataPreprocessor, VisionTransformer
from mmpretrain.models.selfsup import MFF, SparK
from mmpretrain.models.utils import SparseHelper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from mmebm.model_building import unwrapped
from mmebm.models.heads.energy_head import EnergyHead, as_tokens
from mmebm.registry import METRICS


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """One feature vector per image, from the last stage of a model's backbone and without masking.

    Tokens (N, L, D) are averaged, without extra tokens such as the class token if the backbone reports them
    (mmpretrain's and timm's do); maps (N, D, H, W), and under an ``EnergyHead`` also (N, H, W, D), are averaged over
    positions; vectors (N, D) are unchanged. Of a stage of several tensors, all of these are concatenated.

    Args:
        model: A model with ``extract_feat``, such as MMPretrain's self-supervised ones, or such a model in DDP. The
            caller sets its training or evaluation mode.
        images: Images (N, C, H, W), as returned by the model's data preprocessor.

    Returns:
        Features (N, D), float32.

    Raises:
        TypeError: The model has no ``extract_feat``, or it returns no features of a known shape.
    """
    model = unwrapped(model)
    features = extract_feat(model, images)
    if isinstance(features, Sequence):
        features = features[-1]
    stage = features if isinstance(features, Sequence) else [features]
    head = getattr(model, 'head', None)
    widths = head.in_channels[-len(stage) :] if isinstance(head, EnergyHead) else [None] * len(stage)
    return torch.cat([_pooled(model, part, width) for part, width in zip(stage, widths, strict=True)], dim=1)


def width_of(model: nn.Module) -> int | None:
    """Width D of the last features; only an energy head tells it, and so maps (N, H, W, D), such as timm's Swin's."""
    head = getattr(model, 'head', None)
    return head.in_channels[-1] if isinstance(head, EnergyHead) else None


def _pooled(model: nn.Module, features: Tensor, width: int | None) -> Tensor:
    """One vector (N, D) per image, float32, of features in any layout; without a width, maps are (N, D, H, W)."""
    if not isinstance(features, Tensor):
        raise TypeError(
            f'{type(model).__name__}.extract_feat returned a {type(features).__name__} as the last stage: expected a '
            'tensor, or several'
        )
    if not torch.is_floating_point(features) or features.dim() not in (2, 3, 4):
        raise TypeError(
            f'{type(model).__name__}.extract_feat returned {features.dtype} of shape {tuple(features.shape)}: '
            'expected floating point (N, D), (N, L, D) or (N, D, H, W)'
        )
    if features.dim() == 3:
        features = features[:, num_extra_tokens(model.backbone) :].mean(dim=1)
    elif features.dim() == 4:
        features = as_tokens(features, width or features.shape[1]).mean(dim=1)
    return features.float()


def num_extra_tokens(backbone: nn.Module) -> int:
    """Number of tokens before those of the patches, 0 if the backbone does not report it."""
    timm_model = getattr(backbone, 'timm_model', None)
    return getattr(backbone, 'num_extra_tokens', getattr(timm_model, 'num_prefix_tokens', 0))


def extract_feat(model: nn.Module, images: Tensor) -> Tensor | Sequence[Tensor]:
    """``model.extract_feat`` without masking: MMPretrain's models pass ``mask=None`` themselves, except for two."""
    if not hasattr(model, 'extract_feat'):
        raise TypeError(f'{type(model).__name__} has no extract_feat(images): frozen features are read through it')
    if isinstance(model, MFF):
        # Its backbone passes an unmasked call on to MAE's, which masks by default.
        return VisionTransformer.forward(model.backbone, images)
    if isinstance(model, SparK):
        # Its sparse layers keep the mask of the last training step in a global, which every step sets again.
        SparseHelper._cur_active = images.new_ones(len(images), 1, 1, 1, dtype=torch.bool)
    return model.extract_feat(images)


def labelled_features(model: nn.Module, loader: DataLoader, subset: str) -> list[dict]:
    """This process's share of a data set as samples with ``features`` (D,), ``gt_label`` and ``subset``."""
    samples = []
    for batch in loader:
        images, labels = _images_and_labels(model, batch)
        samples += [
            dict(features=features, gt_label=label, subset=subset)
            for features, label in zip(pooled_features(model, images).cpu(), labels, strict=True)
        ]
    # DefaultSampler distributes images in turn and repeats some at the end for equal shares. Those are dropped here,
    # since the metrics gather bank and queries together and could only drop repeated queries.
    rank, world_size = get_dist_info()
    return samples[: len(range(rank, len(loader.dataset), world_size))]


def _images_and_labels(model: nn.Module, batch: dict) -> tuple[Tensor, list]:
    """Images (N, C, H, W), normalised for the model, and their labels.

    Raises:
        ValueError: There is not exactly one image per sample, or an image has no label.
    """
    model = unwrapped(model)
    if not isinstance(batch['inputs'], Tensor):
        raise ValueError(
            'frozen features need batches of one image per sample: use '
            "collate_fn=dict(type='default_collate'), and no CorruptedPair or MultiView in their pipelines"
        )
    if isinstance(model.data_preprocessor, TwoNormDataPreprocessor):
        # It also normalises a second view, for the target generator.
        batch = {**batch, 'inputs': [batch['inputs']] * 2}
    data = model.data_preprocessor(batch, False)
    images = data['inputs'] if isinstance(data['inputs'], Tensor) else data['inputs'][0]
    labels = [sample.get('gt_label') for sample in data.get('data_samples') or []]
    if len(labels) != len(images) or any(label is None for label in labels):
        raise ValueError('frozen features: images have no gt_label: use labelled data sets')
    return images, labels


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
        ValueError: The bank holds fewer than k images.
    """
    if len(bank) < k:
        raise ValueError(f'k={k} nearest neighbours of a bank of {len(bank)} images: enlarge the bank or lower k')
    bank = normalize(bank.float(), dim=1)
    num_classes = int(bank_labels.max()) + 1
    classes = []
    for chunk in queries.float().split(1024):
        similarity, neighbours = (normalize(chunk, dim=1) @ bank.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(chunk), num_classes)
        votes.scatter_add_(1, bank_labels[neighbours], (similarity / temperature).exp())
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
