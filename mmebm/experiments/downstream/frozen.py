"""Frozen features with the data and the backbone of a classifier's config; as a process, kNN for ``mmebm-evaluate``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmebm.engine.evaluating import evaluating
from mmebm.evaluation.frozen_features import samples_of
from mmebm.experiments.results import write_json
from mmebm.model_building import build_initialized


def main(config: str) -> None:
    """Write ``knn.json``, the top-1 of kNN in percent, into the config's ``work_dir``."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    metrics = frozen_metrics(cfg, 'mmebm.KNNAccuracy')
    write_json(Path(cfg.work_dir, 'knn.json'), metrics)


def frozen_metrics(cfg: Config, *metrics: str) -> dict[str, float]:
    """Metrics of a classifier's features: of the validation images, the training images being the bank.

    Args:
        cfg: The classifier's config, which is changed.
        metrics: Types of metrics of frozen features.
    """
    return score([sample for part in extract(cfg) for sample in part], *metrics)


def extract(cfg: Config) -> tuple[list[dict], list[dict]]:
    """Features of the training and of the validation images, without augmentation, as the metrics take them.

    Args:
        cfg: The classifier's config, which is changed.
    """
    set_random_seed(cfg.randomness.seed)
    model = build_initialized(cfg)
    queries = cfg.val_dataloader
    queries.collate_fn = dict(type='default_collate')
    bank = dict(queries, dataset=dict(cfg.train_dataloader.dataset, pipeline=queries.dataset.pipeline))
    with evaluating(model):
        return (
            samples_of(model, Runner.build_dataloader(bank), 'train'),
            samples_of(model, Runner.build_dataloader(queries), 'test'),
        )


def score(samples: Sequence[dict], *metrics: str) -> dict[str, float]:
    """Metrics, by their types, of frozen features."""
    evaluator = Evaluator([dict(type=metric) for metric in metrics])
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


if __name__ == '__main__':
    main(*sys.argv[1:])
