"""Out-of-distribution detection by energy: AUROC."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from sklearn.metrics import roc_auc_score

from mmebm.registry import METRICS


@METRICS.register_module()
class OODEnergyMetric(BaseMetric):
    """Whether out-of-distribution (OOD) images have higher energy than known ones, those of the data set.

    Samples need ``energy``, a scalar, as predicted by ``EnergyClassifier``, and ``img_path``. Labels are not read.

    Keys: ``ood_auroc``, the share of pairs of a known and an OOD image in which the OOD image has the higher energy (a
    tie counts half), 0 to 1; and the mean energies ``ood`` and ``known``.

    Args:
        data_root: The folder of the OOD images, as in their data set's config; all other images are known.
        **kwargs: As in mmengine's BaseMetric.
    """

    default_prefix = 'energy'

    def __init__(self, data_root: str, **kwargs):
        super().__init__(**kwargs)
        self.data_root = data_root

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Collects the energies of a batch of predictions.

        Raises:
            KeyError: A prediction has no energy or no path.
        """
        for sample in data_samples:
            missing = [field for field in ('energy', 'img_path') if field not in sample]
            if missing:
                raise KeyError(
                    f'OODEnergyMetric needs {missing} in each prediction, which has {sorted(sample)}: the model '
                    "must be of type='mmebm.EnergyClassifier', and PackInputs keep img_path"
                )
            self.results.append((float(sample['energy']), Path(sample['img_path']).is_relative_to(self.data_root)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AUROC and the mean energies.

        Raises:
            ValueError: All images are OOD, or none is.
        """
        energies, is_ood = (np.array(column) for column in zip(*results, strict=True))
        if is_ood.all() or not is_ood.any():
            raise ValueError(
                f'OODEnergyMetric: {is_ood.sum()} of {len(is_ood)} images lie in {self.data_root}; it '
                'compares such images with others and needs both'
            )
        return dict(
            ood_auroc=float(roc_auc_score(is_ood, energies)),
            ood=float(energies[is_ood].mean()),
            known=float(energies[~is_ood].mean()),
        )
