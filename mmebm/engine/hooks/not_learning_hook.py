"""Warns of a restoration that does not start."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.checkpoint import loading_configs
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.model_building import type_name
from mmebm.registry import HOOKS

KEY = 'objective_ratio'
PLAIN_VITS = ('VisionTransformer', 'SinCosViT')


@HOOKS.register_module()
@idle_in_dry_runs
class NotLearningHook(Hook):
    """Warn once if restored images are no closer to the clean ones than the corrupted ones after many iterations.

    It reads ``objective_ratio``, which ``EBMAlgorithm`` logs: the loss of restored images, relative to that of the
    corrupted ones; a model without it, such as ``PatchEBM``, is not judged. When restoration starts, the log says so.

    Args:
        after: Iterations of the training, those before it was resumed included, after which to warn. During a long
            warm-up, the learning rate may still be small; the warning says so.
        threshold: Ratio, averaged over ``window``, up to which restoration has started.
        window: Number of latest iterations in the average; at most ``after``.

    Raises:
        ValueError: ``after`` or ``window`` is less than 1, ``window`` exceeds ``after``, or ``threshold`` is not above
            0.
    """

    def __init__(self, after: int = 500, threshold: float = 0.98, window: int = 100) -> None:
        if not 1 <= window <= after:
            raise ValueError(f'NotLearningHook: window={window} and after={after}, expected 1 <= window <= after')
        if not threshold > 0:
            raise ValueError(f'NotLearningHook: threshold={threshold}, expected above 0')
        self.after = after
        self.threshold = threshold
        self.window = window
        self._has_started = self._has_warned = False

    def before_train(self, runner: Runner) -> None:
        """See whether restoration had started before a resumed run was interrupted."""
        ratio = self._ratio(runner) if runner.iter else None
        self._has_started = ratio is not None and ratio <= self.threshold

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Compare the average with the threshold, until restoration has started."""
        if self._has_started or KEY not in (outputs or {}) or not is_main_process():
            return
        ratio = self._ratio(runner)
        if ratio is None:
            return
        iteration = runner.iter + 1
        if ratio <= self.threshold:
            self._has_started = True
            runner.logger.info(f'Restoration has started: {KEY} {ratio:.2f} after {iteration} iterations')
        elif ratio > self.threshold and iteration >= self.after and not self._has_warned:
            self._has_warned = True
            runner.logger.warning(
                f'Not learning: after {iteration} iterations the restored images are hardly closer to the clean ones '
                f'than the corrupted ones, or farther from them ({KEY} {ratio:.2f}, the mean of {self.window} '
                f'iterations; 1 = nothing is restored, 0 = all). {_warm_up(runner)}What to try: '
                f'{"; ".join(_remedies(runner))}.'
            )

    def _ratio(self, runner: Runner) -> float | None:
        """The average over the window, if that many iterations were logged; a resumed run has its history."""
        # RuntimeInfoHook has copied it to the host already.
        latest = _latest(runner, KEY, self.window)
        return sum(latest) / self.window if len(latest) == self.window else None


def _latest(runner: Runner, key: str, number: int) -> list[float]:
    """The values of the latest iterations, the present one last; fewer if fewer were logged."""
    history = runner.message_hub.log_scalars.get(f'train/{key}')
    return [] if history is None else history.data[0][-number:].tolist()


def _warm_up(runner: Runner) -> str:
    rates = _latest(runner, 'lr', 2)
    rises = len(rates) == 2 and rates[1] > rates[0]
    return 'The learning rate is still rising, so that restoration may start later. ' if rises else ''


def _remedies(runner: Runner) -> Iterator[str]:
    """What the config does not do yet."""
    model: Mapping[str, Any] = runner.cfg.get('model') or {}
    backbone, head = model.get('backbone') or {}, model.get('head') or {}
    yield f'another learning rate{_now(runner, "lr")}'
    yield f'another model.step_size{_now(runner, "step_size")}'
    yield 'more steps: smaller batches (train_dataloader.batch_size, optim_wrapper.accumulative_counts) or more epochs'
    if type_name(head) == 'EnergyHead':
        yield 'another energy (model.head.kind, or mmebm.ResidualEnergyHead with step_size=1.0)'
    if (head.get('loss') or {}).get('norm_patch_size') is None:
        yield "the loss of patterns within patches (norm_patch_size of model.head.loss, type='mmebm.RestorationLoss')"
    else:
        yield 'the loss of pixels (model.head.loss without norm_patch_size)'
    if type_name(backbone) == 'VisionTransformer':
        yield 'positions that need not be learned first (mmebm.SinCosViT in place of VisionTransformer)'
    if type_name(backbone) in PLAIN_VITS and not _has_its_weights(runner):
        yield "attention that begins with neighbours (model.backbone.init_cfg=dict(type='mmebm.TiedAttention'))"
    if type_name(backbone) in PLAIN_VITS and 'kernel_size' not in (backbone.get('patch_cfg') or {}):
        yield 'overlapping patches (model.backbone.patch_cfg, as in configs/ebm_vit-t_shapes.py)'


def _has_its_weights(runner: Runner) -> bool:
    """Whether the backbone begins from a file, or with ``TiedAttention``."""
    model: Mapping[str, Any] = runner.cfg.get('model') or {}
    init_cfg = model['backbone'].get('init_cfg')
    configs = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    from_file = runner.cfg.get('load_from') or loading_configs(model.get('init_cfg')) or loading_configs(init_cfg)
    return bool(from_file) or any(type_name(config) == 'TiedAttention' for config in configs)


def _now(runner: Runner, key: str) -> str:
    values = _latest(runner, key, 1)
    return f' (now {values[0]:.2g})' if values else ''
