"""Quality of frozen features during pretraining, by labels or without."""

from collections.abc import Sequence

from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmebm.datasets.classes import check_same_classes
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.evaluating import evaluating
from mmebm.engine.hooks.measuring_hook import MeasuringHook
from mmebm.evaluation.frozen_features import samples_of
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class FrozenFeatureHook(MeasuringHook):
    """Measures frozen features before, during and after pretraining: their accuracy or, without labels, their spectra.

    Works with every self-supervised model that has ``extract_feat``; no predict mode, val loop or head is needed.
    Training is not affected: weights are bitwise the same with and without this hook. Results go to the log, the
    visualizer's backends (step = finished epochs or iterations, 0 before training) and the message hub's ``frozen/``
    scalars, which keep their whole history.

    Args:
        queries: Data loader, or its config, of the images to classify or, without a bank, to measure: one clean image
            per sample, without augmentation, with ``collate_fn=dict(type='default_collate')`` and ``DefaultSampler``.
            Without a bank, they need no labels, and may be pairs by ``CorruptedPair`` with ``num_views``, for LiDAR.
        bank: Likewise, of labelled images; None: no labels are used.
        evaluator: Metrics of features, as configs. None: ``mmebm.KNNAccuracy`` and ``mmebm.LinearProbeAccuracy``;
            without a bank ``mmebm.RankMe`` and ``mmebm.AlphaReQ``, and of pairs also ``mmebm.LiDAR``.
        interval: Epochs, or iterations, between two measurements; the end is always measured.
        before_train: Whether to measure the initial weights too, unless the run is resumed.
        by_epoch: Whether ``interval`` counts epochs; otherwise iterations.

    Raises:
        ValueError: There are no queries, or ``interval`` is less than 1; or, in a measurement, bank and queries have
            different classes, which each of them numbers itself.
    """

    def __init__(
        self,
        bank: dict | DataLoader | None = None,
        queries: dict | DataLoader | None = None,
        evaluator: Sequence[dict] | None = None,
        interval: int = 1,
        before_train: bool = True,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, by_epoch)
        if queries is None:
            raise ValueError('FrozenFeatureHook: no queries, the loader of the images to measure')
        self.loaders = dict(test=queries) if bank is None else dict(train=bank, test=queries)
        self.evaluator = evaluator
        self.measure_initial = before_train

    def before_train(self, runner: Runner) -> None:
        """Measures the initial weights, unless the run is resumed."""
        if self.measure_initial and runner.iter == 0:
            self._measure_and_log(runner, step=0)

    def measure(self, runner: Runner) -> dict[str, float]:
        """The metrics of the model's present weights, by name; the same on every process."""
        samples: list[dict] = []
        with evaluating(runner.model):
            for subset in self.loaders:
                # Built once; inside this context, since a sampler may draw its seed.
                self.loaders[subset] = Runner.build_dataloader(self.loaders[subset], seed=runner.seed)
            self._check_classes()
            for subset, loader in self.loaders.items():
                samples += samples_of(runner.model, loader, subset, labelled='train' in self.loaders)
            evaluator = Evaluator(list(self.evaluator or self._default_metrics(samples)))
            evaluator.process(samples)
            return evaluator.evaluate(sum(len(loader.dataset) for loader in self.loaders.values()))

    def _default_metrics(self, samples: list[dict]) -> list[dict]:
        if 'train' in self.loaders:
            return [dict(type='mmebm.KNNAccuracy'), dict(type='mmebm.LinearProbeAccuracy')]
        label_free = [dict(type='mmebm.RankMe'), dict(type='mmebm.AlphaReQ')]
        return [*label_free, dict(type='mmebm.LiDAR')] if 'views' in samples[0] else label_free

    def _check_classes(self) -> None:
        metas = {name: getattr(loader.dataset, 'metainfo', None) or {} for name, loader in self.loaders.items()}
        bank, queries = (metas.get(subset, {}).get('classes') for subset in ('train', 'test'))
        if bank is not None and queries is not None:
            check_same_classes(
                bank,
                queries,
                'FrozenFeatureHook: bank and queries must have the same classes, since each numbers its own',
            )

    def _measure_and_log(self, runner: Runner, step: int) -> None:
        metrics = self.measure(runner)
        for name, value in metrics.items():
            runner.message_hub.update_scalar(name, value)  # not val/..., which each validation would log again
        # In scalars.json and a file of its own, not in that of training and validation: mmpretrain's analyze_logs
        # expects the same keys in all its lines without a learning rate.
        runner.visualizer.add_scalars(metrics, step=step, file_path='frozen.json')
        values = '  '.join(f'{name}: {value:.2f}' for name, value in metrics.items())
        runner.logger.info(f'Frozen features after {step} {"epochs" if self.by_epoch else "iterations"}  {values}')
