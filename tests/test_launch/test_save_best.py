import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmebm.evaluation import EnergyMetric, RestorationMetric, TokenEnergyMetric
from mmebm.launch.checks.save_best import FIGURES, check_save_best


def config(save_best, *metrics, **hook):
    return Config(
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=save_best, **hook)),
            val_dataloader=dict(batch_size=1) if metrics else None,
            val_evaluator=[dict(type=metric) for metric in metrics],
        )
    )


def test_without_a_validation():
    with pytest.raises(ValueError, match=r"save_best='accuracy/top1' needs a validation, and this training has none"):
        check_save_best(config('accuracy/top1'))


@pytest.mark.parametrize(
    'save_best', ['auto', 'restoration/mask/psnr_corrupted_db', ['energy/mask/auroc', 'frozen/knn_top1']]
)
def test_figures_that_no_training_improves(save_best):
    with pytest.raises(
        ValueError, match=r'name one of restoration/CORRUPTION/psnr_restored_db, .*energy/CORRUPTION/auroc'
    ):
        check_save_best(config(save_best, 'mmebm.RestorationMetric', 'mmebm.EnergyMetric'))


@pytest.mark.parametrize(
    'key', ['restoration/mask/psnr_restored_db', 'energy/noise/auroc', 'energy/grey/pair_accuracy']
)
def test_mmengine_takes_the_figures_that_are_named(key):
    cfg = config(key, 'mmebm.RestorationMetric', 'mmebm.EnergyMetric')
    check_save_best(cfg)
    assert CheckpointHook(**{k: v for k, v in cfg.default_hooks.checkpoint.items() if k != 'type'}).rules == ['greater']


def test_an_error_is_better_if_it_is_less():
    cfg = config('restoration/mask/error_ratio', 'mmebm.RestorationMetric', 'mmebm.TokenEnergyMetric')
    check_save_best(cfg)
    assert CheckpointHook(**{k: v for k, v in cfg.default_hooks.checkpoint.items() if k != 'type'}).rules == ['less']


@pytest.mark.parametrize(
    'key',
    [
        'restoration/psnr_restored_db',  # as the terminal's table has it, by corruption
        'psnr_restored_db',
        'restoration/noise/psnr_restored_db',  # of no corruption here
        'energy/mask/energy_clean',  # better if less, or if greater?
    ],
)
def test_what_would_stop_the_training_after_its_first_validation(key):
    cfg = config(key, 'mmebm.RestorationMetric', 'mmebm.EnergyMetric')
    transforms = [[dict(type='mmebm.PatchMask', ratio=0.5, patch_size=4)], [dict(type='mmebm.GaussianNoise', sigma=9)]]
    choice = dict(type='RandomChoice', transforms=transforms)
    cfg.val_dataloader.dataset = dict(pipeline=[dict(type='mmebm.CorruptedPair', corruption=choice)])
    for right in ('restoration/mask/psnr_restored_db', 'energy/denoise+mask/auroc'):
        cfg.default_hooks.checkpoint.save_best = right
        check_save_best(cfg)
    cfg.default_hooks.checkpoint.save_best = key
    with pytest.raises(ValueError, match=r'auroc, energy/CORRUPTION/pair_accuracy, with a corruption .* denoise, mask'):
        check_save_best(cfg)


def test_a_metric_with_a_prefix_of_its_own():
    cfg = config('p/mask/psnr_restored_db', 'mmebm.RestorationMetric')
    cfg.val_evaluator[0].prefix = 'p'
    check_save_best(cfg)


def test_other_metrics_are_mmengines_to_check():
    check_save_best(config('auto', 'Accuracy'))
    check_save_best(config('anything', 'Accuracy', 'mmebm.EnergyMetric'))
    check_save_best(config(None))
    cfg = config('energy/x/energy_clean', 'mmebm.EnergyMetric', rule='less')
    check_save_best(cfg)
    assert 'greater_keys' not in cfg.default_hooks.checkpoint


def test_the_figures_are_those_of_the_metrics():
    image = torch.rand(3, 16, 16)
    sample = dict(corrupted=image, restored=image, clean=image, energies=torch.zeros(2), clean_energy=torch.zeros(()))
    sample['token_energies'], sample['replaced_pixels'] = torch.zeros(2, 2), torch.eye(16) > 0
    for metric in (RestorationMetric(), EnergyMetric(), TokenEnergyMetric()):
        metric.process(None, [sample])
        found = {
            f'{metric.prefix}/{key}'.replace('/all/', '/CORRUPTION/') for key in metric.compute_metrics(metric.results)
        }
        of_data = ('psnr_corrupted_db', 'ssim_corrupted', 'corrupted_share')  # which no training changes
        assert {key for key in found if not key.endswith(of_data)} == {*FIGURES[type(metric).__name__]}
