"""Corrupted patches told by the energies of tokens."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmebm.evaluation import TokenEnergyMetric


def sample(energies, changed, corruption='sort'):
    """One of 2 x 3 patches of 2 pixels; of a changed one, a single value differs."""
    clean = torch.arange(3 * 4 * 6.0).view(3, 4, 6)
    corrupted = clean.clone()
    for row, column in changed:
        corrupted[1, 2 * row + 1, 2 * column] += 1
    sample = DataSample()
    sample.set_field(torch.tensor(energies), 'token_energies')
    sample.set_field(clean, 'clean')
    sample.set_field(corrupted, 'corrupted')
    sample.set_metainfo(dict(corruption=corruption))
    return sample


def evaluate(samples):
    metric = TokenEnergyMetric()
    metric.process(None, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_patches_of_all_images_of_a_corruption():
    first = sample([[5.0, 1.0, 2.0], [0.0, -1.0, 3.0]], [(0, 0), (1, 2)])
    second = sample([[0.5, 4.0, 0.2], [0.3, 0.4, 0.1]], [(0, 0)])
    # Of 3 x 9 pairs: 5 is above all nine, 3 above all but 4, 0.5 above all but 1, 2 and 4.
    assert evaluate([first, second]) == {
        'token_energy/sort/corrupted_share': 3 / 12,
        'token_energy/sort/auroc': pytest.approx((9 + 8 + 6) / 27),
    }


@pytest.mark.parametrize('changed', [[], [(row, column) for row in range(2) for column in range(3)]])
def test_without_both_kinds_of_patches_the_share_alone(changed):
    metrics = evaluate([sample([[0.0] * 3] * 2, changed)])
    assert metrics == {'token_energy/sort/corrupted_share': len(changed) / 6}


def test_without_token_energies():
    incomplete = sample([[0.0] * 3] * 2, [])
    incomplete.pop('token_energies')
    with pytest.raises(KeyError, match="TokenEnergyMetric needs .'token_energies'."):
        evaluate([incomplete])
