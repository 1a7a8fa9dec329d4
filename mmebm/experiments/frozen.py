"""Frozen features with the data and the backbone of a classifier's config; as a process, kNN for ``mmebm-evaluate``."""

import json
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmebm.engine.evaluating import evaluating
from mmebm.evaluation.frozen_features import labelled_features
from mmebm.model_building import build_initialized


def main(config: str) -> None:
    """Write ``knn.json``, the top-1 of kNN in percent, into the config's ``work_dir``."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    metrics = frozen_metrics(cfg, 'mmebm.KNNAccuracy')
    Path(cfg.work_dir, 'knn.json').write_text(json.dumps(metrics))


def frozen_metrics(cfg: Config, *metrics: str) -> dict[str, float]:
    """Metrics of a classifier's features: of the validation images, the training images being the bank.

    Args:
        cfg: The classifier's config, which is changed.
        metrics: Types of metrics of frozen features.
    """
    set_random_seed(cfg.randomness.seed)
    model = build_initialized(cfg)
    queries = cfg.val_dataloader
    queries.collate_fn = dict(type='default_collate')
    dataset = dict(cfg.train_dataloader.dataset, pipeline=queries.dataset.pipeline)  # without augmentation
    evaluator = Evaluator([dict(type=metric) for metric in metrics])
    num_images = 0
    with evaluating(model):
        for subset, loader in (('train', dict(queries, dataset=dataset)), ('test', queries)):
            loader = Runner.build_dataloader(loader)
            evaluator.process(labelled_features(model, loader, subset))
            num_images += len(loader.dataset)
        return evaluator.evaluate(num_images)


if __name__ == '__main__':
    main(*sys.argv[1:])
