"""Lets tools of mmpretrain follow mmebm's configs: ``browse_dataset``, and the inferencers that read images."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import Config
from numpy.typing import NDArray

from mmebm.upstream.after_import import after_import


def install() -> None:
    """Mends what the tools use, whether it has been imported or not."""
    after_import('matplotlib._tight_bbox', _mend)
    after_import('mmpretrain.visualization.visualizer', lambda module: _take_scope(module.UniversalVisualizer))
    after_import('mmpretrain.apis.feature_extractor', lambda module: _follow_loader(module.FeatureExtractor))
    after_import(
        'mmpretrain.apis.image_classification', lambda module: _follow_loader(module.ImageClassificationInferencer)
    )


def _mend(module: ModuleType) -> None:
    # The script passes no renderer, which today's matplotlib wants, but reads for axes with a locator alone; the
    # script's have none. In place, since the script holds the function before a config imports mmebm.
    parameters = list(inspect.signature(module.adjust_bbox).parameters.values())
    if [parameter.name for parameter in parameters] == ['fig', 'bbox_inches', 'renderer', 'fixed_dpi']:
        module.adjust_bbox.__defaults__ = (None, None)


def _take_scope(visualizer: Any) -> None:
    """Let the visualizer pass over a scope, which a config inherits with it, and which the script hands on to it."""
    init = visualizer.__init__

    @functools.wraps(init)
    def init_without_scope(self: Any, *args: Any, _scope_: str | None = None, **kwargs: Any) -> None:
        init(self, *args, **kwargs)

    visualizer.__init__ = init_without_scope


def _follow_loader(inferencer: Any) -> None:
    """Let an inferencer load images by the config's ``LoadImage``.

    By its own function, it would read all files as 8 bits, whatever the loader's ``value_range`` and ``color_type``.
    """
    init_pipeline, preprocess = inferencer._init_pipeline, inferencer.preprocess

    def init_pipeline_and_loader(self: Any, cfg: Config) -> Callable:
        from mmpretrain.registry import TRANSFORMS

        from mmebm.datasets import LoadImage

        steps = cfg.test_dataloader.dataset.pipeline
        loader = TRANSFORMS.build(steps[0])
        self.mmebm_loader = loader if isinstance(loader, LoadImage) else None
        if self.mmebm_loader:
            cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=steps[1:]))))
        return init_pipeline(self, cfg)

    def preprocess_loaded(self: Any, inputs: Iterable[str | Path | NDArray], batch_size: int = 1) -> Iterator:
        if self.mmebm_loader:
            sources = (dict(img_path=str(i)) if isinstance(i, (str, Path)) else dict(img=i) for i in inputs)
            inputs = (self.mmebm_loader(source)['img'] for source in sources)
        return preprocess(self, inputs, batch_size)

    inferencer._init_pipeline, inferencer.preprocess = init_pipeline_and_loader, preprocess_loaded
