"""Checks which figure of the validation selects the best checkpoint."""

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmebm.model_building import type_name

KEY = 'default_hooks.checkpoint.save_best'

# Figures per corruption, by metric, without those of the corrupted images, which no training changes.
FIGURES = {
    'RestorationMetric': ('restoration/CORRUPTION/psnr_restored_db', 'restoration/CORRUPTION/ssim_restored'),
    'EnergyMetric': tuple(
        f'energy/CORRUPTION/{name}'
        for name in ('auroc', 'pair_accuracy', 'energy_clean', 'energy_corrupted', 'energy_restored')
    ),
}

# What is better if greater, besides what mmengine knows.
GREATER = ('psnr', 'ssim', 'auroc')


def check_save_best(cfg: Config) -> None:
    """Check ``save_best`` of a training's config, and say in the config that PSNR, SSIM and AUROC are to be large.

    mmengine would look for the figure after the first validation.

    Raises:
        ValueError: There is no validation; ``'auto'`` would take a figure of the corrupted images; or the validation
            has no such figure, as far as this package's metrics are concerned.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    keys = [hook['save_best']] if isinstance(hook.get('save_best'), str) else hook.get('save_best') or []
    if not keys:
        return
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        raise ValueError(
            f'{KEY}={hook.save_best!r} needs a validation, and this training has none (val_dataloader, val_cfg and '
            f'val_evaluator): set them, or {KEY}=None'
        )
    if not hook.get('rule'):
        hook.setdefault('greater_keys', [*CheckpointHook._default_greater_keys, *GREATER])
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, (list, tuple)) else [cfg.val_evaluator]
    names = [type_name(evaluator) for evaluator in evaluators]
    ours = [figure for name in names for figure in FIGURES.get(name, ())]
    endings = [figure.rpartition('/')[2] for figure in ours]
    for key in keys:
        is_missing = all(name in FIGURES for name in names) and key.rpartition('/')[2] not in endings
        if is_missing or ours and key == 'auto':
            raise ValueError(
                f'{KEY}={key!r} selects no figure that training improves; name one of {", ".join(ours)}, with the name '
                'of a corruption as the log of a validation has it, such as mask'
            )
