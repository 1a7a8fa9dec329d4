import math

import pytest
import torch
from mmpretrain.structures import DataSample

from mmebm.evaluation import RestorationMetric
from mmebm.registry import METRICS


def prediction(corrupted_offset, restored_offset, corruption=None):
    clean = torch.linspace(20, 200, 3 * 16 * 16).reshape(3, 16, 16)
    fields = dict(clean=clean, corrupted=clean + corrupted_offset, restored=clean + restored_offset)
    metainfo = dict(corruption=corruption) if corruption else {}
    return DataSample(metainfo=metainfo, **fields).to_dict()


def evaluate(samples):
    metric = METRICS.build(dict(type='mmebm.RestorationMetric'))
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_psnr_of_a_constant_offset():
    metrics = evaluate([prediction(10, 5)])
    assert metrics['restoration/all/psnr_corrupted_db'] == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert metrics['restoration/all/psnr_restored_db'] == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)


def test_psnr_is_the_mean_of_each_corruptions_db():
    metrics = evaluate([prediction(10, 1, 'mask'), prediction(20, 1, 'mask'), prediction(40, 1, 'sr')])
    mean_db = 20 * math.log10(255) - 10 * (math.log10(10) + math.log10(20))
    assert metrics['restoration/mask/psnr_corrupted_db'] == pytest.approx(mean_db, abs=1e-4)
    assert metrics['restoration/sr/psnr_corrupted_db'] == pytest.approx(20 * math.log10(255 / 40), abs=1e-4)
    assert len(metrics) == 10


def test_error_ratio_is_that_of_the_summed_errors():
    metrics = evaluate([prediction(10, 5, 'mask'), prediction(20, 10, 'mask'), prediction(4, 8, 'mask')])
    assert metrics['restoration/mask/error_ratio'] == pytest.approx((25 + 100 + 64) / (100 + 400 + 16), rel=1e-5)
    assert evaluate([prediction(0, 3)])['restoration/all/error_ratio'] == 1.0


def test_an_equal_image_counts_as_100_db_and_ssim_1():
    metrics = evaluate([prediction(10, 0)])
    assert metrics['restoration/all/psnr_restored_db'] == 100
    assert metrics['restoration/all/ssim_restored'] == pytest.approx(1, abs=1e-5)
    assert metrics['restoration/all/ssim_corrupted'] < 0.9999


def test_restored_images_are_clipped():
    sample = prediction(10, 0)
    sample['clean'] = torch.full((3, 16, 16), 255.0)
    sample['restored'] = torch.full((3, 16, 16), 400.0)
    assert evaluate([sample])['restoration/all/psnr_restored_db'] == 100


def test_an_unpaired_prediction_is_named():
    sample = prediction(10, 5)
    del sample['clean']
    with pytest.raises(KeyError, match="needs .'clean'. in each prediction.*CorruptedPair"):
        RestorationMetric().process(None, [sample])
