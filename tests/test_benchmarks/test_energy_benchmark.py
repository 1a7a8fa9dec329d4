"""Energies of the clean images of a data set."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS

from benchmarks.energy import energies

CONFIG = Path(__file__).parents[2] / 'configs/peers/ebm_vit-w128_32px.py'


def test_energies_are_those_of_clean_images():
    cfg = Config.fromfile(CONFIG)
    cfg.model.training_step = dict(compile=False)
    model = MODELS.build(cfg.model).eval()
    loader = dict(cfg.test_dataloader) | dict(num_workers=0, persistent_workers=False, batch_size=2)
    plain = dict(type='mmebm.Shapes', size=3, split='val', image_size=32, pipeline=[dict(type='PackInputs')])
    pair = dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.Grayscale'))
    pairs = plain | dict(pipeline=[pair, dict(type='PackInputs')])
    images = torch.stack([sample['inputs'] for sample in DATASETS.build(plain)])
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=images, data_samples=None), False)['inputs']
        expected = model.energy(inputs[-1] if isinstance(inputs, list) else inputs)
    for dataset in (plain, pairs):
        torch.testing.assert_close(energies(model, loader, dataset), expected)
