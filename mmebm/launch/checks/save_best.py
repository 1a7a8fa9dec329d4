"""Checks which figure of the validation selects the best checkpoint."""

import re

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmebm.config_tree import nested_dicts
from mmebm.corruptions import Corruption
from mmebm.model_building import type_name
from mmebm.registry import TRANSFORMS

KEY = 'default_hooks.checkpoint.save_best'

# Figures per corruption, by metric, without those of the corrupted images, which no training changes.
FIGURES = {
    'RestorationMetric': tuple(
        f'restoration/CORRUPTION/{name}' for name in ('psnr_restored_db', 'ssim_restored', 'error_ratio')
    ),
    'EnergyMetric': tuple(
        f'energy/CORRUPTION/{name}'
        for name in ('auroc', 'pair_accuracy', 'energy_clean', 'energy_corrupted', 'energy_restored')
    ),
    'TokenEnergyMetric': ('token_energy/CORRUPTION/auroc',),
}

# What is better if greater, and what if less, besides what mmengine knows.
GREATER, LESS = ('psnr', 'ssim', 'auroc'), ('error_ratio',)

# Figures that are neither better if greater nor if less, unless the config says which (``rule``).
NEITHER = 'energy_'

# Of images without a corruption, and of transforms that do not say their name.
NAMELESS = {'all', 'custom'}


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
        hook.setdefault('less_keys', [*CheckpointHook._default_less_keys, *LESS])
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, (list, tuple)) else [cfg.val_evaluator]
    is_ours = all(type_name(evaluator) in FIGURES for evaluator in evaluators)
    figures = [figure for evaluator in evaluators for figure in _figures(evaluator)]
    if not hook.get('rule'):
        figures = [figure for figure in figures if not figure.rpartition('/')[2].startswith(NEITHER)]
    names = corruption_names(cfg)
    for key in keys:
        if (is_ours and not _is_one(key, figures, names)) or (figures and key == 'auto'):
            raise ValueError(
                f'{KEY}={key!r} selects no figure that training improves; name one of {", ".join(figures)}, with a '
                f'corruption of the validation in it: {", ".join(sorted(names)) or "as the log names it"}'
            )


def corruption_names(cfg: Config) -> set[str]:
    """The names that a validation's corruptions have in its figures; those of a chain are joined by ``+``."""
    nodes = [node for _, node in nested_dicts(cfg.val_dataloader)]
    pairs = [node for node in nodes if type_name(node) == 'CorruptedPair']
    types = [node['type'] for pair in pairs for _, node in nested_dicts(dict(pair)) if node.get('type')]
    classes = [TRANSFORMS.get(found) if isinstance(found, str) else found for found in types]
    return {cls.name for cls in classes if isinstance(cls, type) and issubclass(cls, Corruption)}


def _figures(evaluator: dict) -> list[str]:
    """The figures of one of this package's metrics, which may have a prefix of its own."""
    figures = FIGURES.get(type_name(evaluator), ())
    prefix = evaluator.get('prefix')
    return [f'{prefix}/{figure.partition("/")[2]}' if prefix else figure for figure in figures]


def _is_one(key: str, figures: list[str], names: set[str]) -> bool:
    """Whether a key is one of the figures, with corruptions that there are, as far as they are known."""
    matches = [re.fullmatch(re.escape(figure).replace('CORRUPTION', '([^/]+)'), key) for figure in figures]
    known = names | NAMELESS
    return any(match and (not names or known.issuperset(match[1].split('+'))) for match in matches)
