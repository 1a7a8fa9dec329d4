"""How well the energy tells images of the data set from foreign ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from sklearn.metrics import roc_auc_score

from mmebm.registry import METRICS


@METRICS.register_module()
class OODEnergyMetric(BaseMetric):
    """Whether foreign images get more energy than those of the data set.

    Samples carry ``energy``, a scalar, as ``EnergyClassifier`` gives it, and ``img_path``. Labels play no part.

    Keys: ``ood_auroc``, the share of pairs of a known and a foreign image in which the foreign one has more energy
    (a tie counts half); and the means ``foreign`` and ``known``.

    Args:
        data_root: The folder of the foreign images, as their data set names it; all other images are known.
        **kwargs: As in mmengine's BaseMetric.
    """

    default_prefix = 'energy'

    def __init__(self, data_root: str, **kwargs):
        super().__init__(**kwargs)
        self.data_root = data_root

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Takes the energies of a batch of predictions.

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
            ValueError: All images are foreign, or none is.
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
