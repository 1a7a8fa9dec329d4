"""Classification accuracy of frozen features during pretraining."""

from collections.abc import Sequence

from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmebm.datasets.classes import check_same_classes
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.evaluating import evaluating
from mmebm.engine.hooks.measuring_hook import MeasuringHook
from mmebm.evaluation.frozen_features import labelled_features
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class FrozenFeatureHook(MeasuringHook):
    """Measures the accuracy of the frozen features before, during and after pretraining.

    Works with every self-supervised model that has ``extract_feat``; no predict mode, val loop or head is needed.
    Training is not affected: weights are bitwise the same with and without this hook. Results, in percent, go to the
    log, the visualizer's backends (step = finished epochs or iterations, 0 before training) and the message hub's
    ``frozen/`` scalars, which keep their whole history.

    Args:
        bank: Data loader, or its config, of labelled images: one clean image per sample, without augmentation, with
            ``collate_fn=dict(type='default_collate')`` and ``DefaultSampler``.
        queries: Likewise, of the images to classify.
        evaluator: Metrics of features, as configs. None: ``mmebm.KNNAccuracy`` and ``mmebm.LinearProbeAccuracy``.
        interval: Epochs, or iterations, between two measurements; the end is always measured.
        before_train: Whether to measure the initial weights too, unless the run is resumed.
        by_epoch: Whether ``interval`` counts epochs; otherwise iterations.

    Raises:
        ValueError: ``interval`` is less than 1; or, in a measurement, bank and queries have different classes, which
            each of them numbers itself.
    """

    def __init__(
        self,
        bank: dict | DataLoader,
        queries: dict | DataLoader,
        evaluator: Sequence[dict] | None = None,
        interval: int = 1,
        before_train: bool = True,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, by_epoch)
        self.loaders = dict(train=bank, test=queries)
        self.evaluator = evaluator or [dict(type='mmebm.KNNAccuracy'), dict(type='mmebm.LinearProbeAccuracy')]
        self.measure_initial = before_train

    def before_train(self, runner: Runner) -> None:
        """Measures the initial weights, unless the run is resumed."""
        if self.measure_initial and runner.iter == 0:
            self._measure_and_log(runner, step=0)

    def measure(self, runner: Runner) -> dict[str, float]:
        """The metrics of the model's present weights, by name; the same on every process."""
        evaluator = Evaluator(list(self.evaluator))
        num_samples = 0
        with evaluating(runner.model):
            for subset in self.loaders:
                # Built once; inside this context, since a sampler may draw its seed.
                self.loaders[subset] = Runner.build_dataloader(self.loaders[subset], seed=runner.seed)
            self._check_classes()
            for subset, loader in self.loaders.items():
                evaluator.process(labelled_features(runner.model, loader, subset))
                num_samples += len(loader.dataset)
            return evaluator.evaluate(num_samples)

    def _check_classes(self) -> None:
        metas = [getattr(loader.dataset, 'metainfo', None) or {} for loader in self.loaders.values()]
        bank, queries = (meta.get('classes') for meta in metas)
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
