"""How well replaced tokens are detected, and how well the generator predicts tokens."""

import numpy as np
from sklearn.metrics import roc_auc_score

from mmebm.evaluation.restoration_metric import CorruptionMetric
from mmebm.registry import METRICS


@METRICS.register_module()
class TokenMetric(CorruptionMetric):
    """Detection of replaced tokens, and the generator's accuracy.

    Keys: ``generator_accuracy``, the share of masked tokens that the generator finds most probable;
    ``most_frequent_token_share``, that of the most frequent of all golden tokens, which is the accuracy of a generator
    that always predicts it; ``replaced_share``, that of tokens that are not golden. For predictions with
    ``replaced_logits`` also ``detection_accuracy`` (above zero = replaced) and, unless all are replaced or none,
    ``detection_auroc``, over the tokens of all images. All are 0 to 1. Samples need ``golden`` and ``replaced``, each
    (h, w), and ``generator_accuracy``.
    """

    default_prefix = 'tokens'
    fields = ('golden', 'replaced', 'generator_accuracy')

    def measure(self, sample: dict) -> dict[str, np.ndarray]:
        """What is needed of one image."""
        names = [*self.fields, *(['replaced_logits'] if 'replaced_logits' in sample else [])]
        return {name: sample[name].cpu().numpy() for name in names}

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """The numbers of a group, from fields (N, ...)."""
        replaced, counts = columns['replaced'].ravel(), np.bincount(columns['golden'].ravel())
        metrics = dict(
            generator_accuracy=float(columns['generator_accuracy'].mean()),
            most_frequent_token_share=float(counts.max() / counts.sum()),
            replaced_share=float(replaced.mean()),
        )
        if 'replaced_logits' in columns:
            logits = columns['replaced_logits'].ravel()
            metrics['detection_accuracy'] = float(((logits > 0) == replaced).mean())
            if 0 < metrics['replaced_share'] < 1:
                metrics['detection_auroc'] = float(roc_auc_score(replaced, logits))
        return metrics
