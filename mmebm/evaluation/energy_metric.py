"""How well the energy separates clean from corrupted images: accuracy on pairs, and AUROC."""

import numpy as np
from sklearn.metrics import roc_auc_score

from mmebm.evaluation.restoration_metric import CorruptionMetric
from mmebm.registry import METRICS


@METRICS.register_module()
class EnergyMetric(CorruptionMetric):
    """Whether clean images have lower energy than corrupted ones.

    Keys: ``pair_accuracy``, the share of images whose clean version has lower energy than the corrupted one (a tie
    counts half), 0 to 1; ``auroc``, the same share over all pairs of a clean and a corrupted image of the group; and
    the means ``energy_clean``, ``energy_corrupted``, ``energy_restored``. Samples need ``energies`` (K + 1,), from the
    corrupted to the restored image, and ``clean_energy``, a scalar.
    """

    default_prefix = 'energy'
    fields = ('energies', 'clean_energy')

    def measure(self, sample: dict) -> dict[str, float]:
        """The clean, corrupted and restored energy of one image."""
        return dict(
            energy_clean=float(sample['clean_energy']),
            energy_corrupted=float(sample['energies'][0]),
            energy_restored=float(sample['energies'][-1]),
        )

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Pair accuracy and AUROC, 0 to 1, and the mean energies, from energies (N,)."""
        clean, corrupted = columns['energy_clean'], columns['energy_corrupted']
        is_corrupted = np.repeat([0, 1], len(clean))
        return dict(
            pair_accuracy=float(((clean < corrupted) + 0.5 * (clean == corrupted)).mean()),
            # Not torchmetrics: it passes scores outside [0, 1] through a sigmoid, which maps all large energies to 1.
            auroc=float(roc_auc_score(is_corrupted, np.concatenate([clean, corrupted]))),
            **super().summarize(columns),
        )
