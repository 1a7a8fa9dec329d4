"""PSNR, SSIM and squared error before and after restoration."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mmebm.pixels import PEAK
from mmebm.registry import METRICS

MAX_PSNR_DB = 100.0


def split_key(key: str) -> tuple[str, str, str]:
    """Prefix, corruption and number of a metric's key ``prefix/corruption/number``; a corruption may hold slashes."""
    prefix, _, rest = key.partition('/')
    corruption, _, number = rest.rpartition('/')
    return prefix, corruption, number


class CorruptionMetric(BaseMetric):
    """Base class: numbers measured per image and summarised per corruption.

    The groups are the values of the samples' ``corruption`` (one of the ``meta_keys`` of ``PackInputs``); samples
    without it form the group ``all``. Keys of the result: ``<prefix>/<corruption>/<number>``.
    """

    fields: tuple[str, ...]

    @abstractmethod
    def measure(self, sample: dict) -> dict[str, Any]:
        """The numbers of one image, by name, or arrays of them."""

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """The numbers of a group from those of its N images, one array (N, ...) per number: their means."""
        return {key: float(values.mean()) for key, values in columns.items()}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measures a batch of predictions.

        Raises:
            KeyError: A prediction lacks a field that this metric needs.
        """
        for sample in data_samples:
            missing = [field for field in self.fields if field not in sample]
            if missing:
                raise KeyError(
                    f'{type(self).__name__} needs {missing} in each prediction, which has {sorted(sample)}: '
                    'evaluate pairs, by a pipeline with CorruptedPair'
                )
            self.results.append((sample.get('corruption', 'all'), self.measure(sample)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Summarises the images of each corruption."""
        groups = defaultdict(list)
        for corruption, row in results:
            groups[corruption].append(row)
        metrics = {}
        for corruption, rows in sorted(groups.items()):
            columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            metrics.update({f'{corruption}/{key}': value for key, value in self.summarize(columns).items()})
        return metrics


@METRICS.register_module()
class RestorationMetric(CorruptionMetric):
    """PSNR, SSIM and squared error of the corrupted and of the restored image, each against the clean one.

    PSNR is in dB at a peak of 255, over all pixels and channels of an image, and a group's value is the mean of its
    images' dB (not the dB of their mean error). PSNR is capped at 100 dB, since it is infinite for an image that equals
    its clean version. SSIM is the mean over windows of 11 px (Gaussian, sigma 1.5), as in Wang et al., 2004, so images
    need at least 6 px per side. Restored images are clipped to [0, 255] first.

    ``error_ratio`` is the sum of squared errors of a group's restored images over that of its corrupted ones; 1 if
    these have none. The ``error_ratio`` in the log of a training is that of normalised pixels, not clipped.

    Keys: ``psnr_corrupted_db``, ``psnr_restored_db``, ``ssim_corrupted``, ``ssim_restored``, ``error_ratio``. Samples
    need ``corrupted``, ``restored`` and ``clean``, each (C, H, W) in pixel units.
    """

    default_prefix = 'restoration'
    fields = ('corrupted', 'restored', 'clean')

    def measure(self, sample: dict) -> dict[str, float]:
        """PSNR, SSIM and squared errors of one image."""
        clean = sample['clean'].float()
        corrupted = sample['corrupted'].float()
        restored = sample['restored'].float().clamp(0, PEAK)
        return dict(
            psnr_corrupted_db=_psnr_db(corrupted, clean),
            psnr_restored_db=_psnr_db(restored, clean),
            ssim_corrupted=_ssim(corrupted, clean),
            ssim_restored=_ssim(restored, clean),
            error_corrupted=(corrupted - clean).square().sum().item(),
            error_restored=(restored - clean).square().sum().item(),
        )

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Means over the images, and the ratio of the summed errors."""
        before, after = (columns.pop(f'error_{which}').sum() for which in ('corrupted', 'restored'))
        return super().summarize(columns) | dict(error_ratio=float(after / before) if before > 0 else 1.0)


def _psnr_db(image: Tensor, clean: Tensor) -> float:
    return peak_signal_noise_ratio(image, clean, data_range=PEAK).clamp(max=MAX_PSNR_DB).item()


def _ssim(image: Tensor, clean: Tensor) -> float:
    return structural_similarity_index_measure(image[None], clean[None], data_range=PEAK).item()
