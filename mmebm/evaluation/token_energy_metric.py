"""How well the energies of tokens tell corrupted patches from the others of an image."""

import numpy as np
from sklearn.metrics import roc_auc_score

from mmebm.evaluation.restoration_metric import CorruptionMetric
from mmebm.models.patches import changed_patches, marked_patches
from mmebm.registry import METRICS


@METRICS.register_module()
class TokenEnergyMetric(CorruptionMetric):
    """Whether corrupted patches have higher energy than those that a corruption left.

    Keys: ``auroc``, over the patches of all images of a group, 0 to 1, of a patch's energy as a score of its being
    corrupted; and ``corrupted_share``, that of the corrupted patches. A group whose patches are all corrupted, or none,
    has the share alone. Samples need ``token_energies`` (h, w) and ``corrupted`` and ``clean``, each (C, H, W), as
    ``EBMAlgorithm.predict`` returns them for heads with an energy for each token. If it says which were replaced
    (``replaced_pixels``), these are the corrupted ones.
    """

    default_prefix = 'token_energy'
    fields = ('token_energies', 'corrupted', 'clean')

    def measure(self, sample: dict) -> dict[str, np.ndarray]:
        """Energies and labels of the patches of one image, each (h w,)."""
        energies, grid = sample['token_energies'], tuple(sample['token_energies'].shape)
        if 'replaced_pixels' in sample:
            changed = marked_patches(sample['replaced_pixels'][None], grid)
        else:
            changed = changed_patches(sample['corrupted'][None], sample['clean'][None], grid)
        return dict(energies=energies.float().cpu().numpy().ravel(), changed=changed[0].cpu().numpy())

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """The numbers of a group, from fields (N, h w)."""
        changed = columns['changed'].ravel()
        metrics = dict(corrupted_share=float(changed.mean()))
        if 0 < metrics['corrupted_share'] < 1:
            metrics['auroc'] = float(roc_auc_score(changed, columns['energies'].ravel()))
        return metrics
