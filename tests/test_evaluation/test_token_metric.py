"""Detection of replaced tokens, and accuracy of the generator."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmebm.evaluation import TokenMetric


def sample(golden, replaced, accuracy, logits=None):
    sample = DataSample()
    sample.set_field(torch.tensor(golden), 'golden')
    sample.set_field(torch.tensor(replaced), 'replaced')
    sample.set_field(torch.tensor(accuracy), 'generator_accuracy')
    if logits is not None:
        sample.set_field(torch.tensor(logits), 'replaced_logits')
    return sample


def evaluate(samples):
    metric = TokenMetric()
    metric.process(None, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_numbers_over_all_tokens():
    first = sample([[3, 3], [0, 1]], [[True, False], [False, False]], 0.5, [[2.0, -1.0], [0.5, -4.0]])
    second = sample([[3, 2], [0, 1]], [[True, True], [False, False]], 0.0, [[0.1, -2.0], [-3.0, -5.0]])
    assert evaluate([first, second]) == {
        'tokens/all/generator_accuracy': 0.25,
        'tokens/all/most_frequent_token_share': 3 / 8,
        'tokens/all/replaced_share': 3 / 8,
        'tokens/all/detection_accuracy': 6 / 8,
        # Of 15 pairs: 2.0 is above all five, 0.1 above all but 0.5, -2.0 above -3, -4 and -5.
        'tokens/all/detection_auroc': pytest.approx(12 / 15),
    }


def test_without_detection():
    metrics = evaluate([sample([[0]], [[False]], 1.0)])
    assert sorted(metrics) == [
        'tokens/all/generator_accuracy', 'tokens/all/most_frequent_token_share', 'tokens/all/replaced_share'
    ]  # fmt: skip


def test_predictions_of_another_model():
    with pytest.raises(KeyError, match=r"TokenMetric needs \['golden', 'replaced', 'generator_accuracy'\]"):
        TokenMetric().process(None, [{}])


@pytest.mark.parametrize('replaced', [True, False])
def test_no_auroc_of_one_class(replaced):
    metrics = evaluate([sample([[0, 1]], [[replaced, replaced]], 1.0, [[2.0, -1.0]])])
    assert metrics['tokens/all/detection_accuracy'] == 0.5 and 'tokens/all/detection_auroc' not in metrics
