"""kNN on frozen features with the data and the backbone of a linear probe's config; a process of ``mmebm-evaluate``."""

import json
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmebm.engine.undisturbed import undisturbed
from mmebm.evaluation.frozen_features import labelled_features
from mmebm.registry import MODELS


def main(config: str) -> None:
    """Write ``knn.json`` into the ``work_dir``: top-1 of the validation images, the training images being the bank."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    set_random_seed(cfg.randomness.seed)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(get_device())
    queries = cfg.val_dataloader
    queries.collate_fn = dict(type='default_collate')
    dataset = dict(cfg.train_dataloader.dataset, pipeline=queries.dataset.pipeline)  # without augmentation
    evaluator = Evaluator([dict(type='mmebm.KNNAccuracy')])
    num_images = 0
    with undisturbed(model):
        for subset, loader in (('train', dict(queries, dataset=dataset)), ('test', queries)):
            loader = Runner.build_dataloader(loader)
            evaluator.process(labelled_features(model, loader, subset))
            num_images += len(loader.dataset)
        metrics = evaluator.evaluate(num_images)
    Path(cfg.work_dir, 'knn.json').write_text(json.dumps(metrics))


if __name__ == '__main__':
    main(*sys.argv[1:])
