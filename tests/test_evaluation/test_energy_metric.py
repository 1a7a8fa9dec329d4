import pytest
import torch
from mmpretrain.structures import DataSample

from mmebm.registry import METRICS


def evaluate(rows):
    """rows: (corruption, energy of the clean, of the corrupted, of the restored image)."""
    samples = [
        DataSample(
            metainfo=dict(corruption=corruption),
            clean_energy=torch.tensor(float(clean)),
            energies=torch.tensor([corrupted, (corrupted + restored) / 2, restored]),
        ).to_dict()
        for corruption, clean, corrupted, restored in rows
    ]
    metric = METRICS.build(dict(type='mmebm.EnergyMetric'))
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_shares_and_means():
    # Pairs: right, wrong, tie. All 9 pairs: 1 is below 2, 3, 7; 4 below 7; 7 below none and ties with 7.
    metrics = evaluate([('mask', 1, 2, 1), ('mask', 4, 3, 2), ('mask', 7, 7, 3)])
    assert metrics['energy/mask/pair_accuracy'] == pytest.approx(1.5 / 3)
    assert metrics['energy/mask/auroc'] == pytest.approx(4.5 / 9)
    assert metrics['energy/mask/energy_clean'] == pytest.approx(4)
    assert metrics['energy/mask/energy_corrupted'] == pytest.approx(4)
    assert metrics['energy/mask/energy_restored'] == pytest.approx(2)


def test_corruptions_are_apart():
    metrics = evaluate([('mask', 0, 1, 0), ('sort', 1, 0, 0)])
    assert metrics['energy/mask/auroc'] == 1
    assert metrics['energy/sort/auroc'] == 0


def test_large_energies_are_told_apart():
    assert evaluate([('mask', 100, 300, 200), ('mask', 150, 250, 200)])['energy/mask/auroc'] == 1
