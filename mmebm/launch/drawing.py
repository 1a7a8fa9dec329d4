"""``--show``, ``--show-dir`` and ``--tta`` of mmpretrain's test script, for models that are no classifiers."""

from pathlib import Path

from mmengine.config import Config
from mmpretrain.models.selfsup import BaseSelfSupervisor

from mmebm.model_building import model_class, type_name
from mmebm.models.selfsup.base import BaseRestorer


def adapt_drawing(cfg: Config) -> None:
    """Let the hook that draws predictions fit the model, in place.

    The script enables it as if it were mmpretrain's. Those of mmseg and mmdet have other arguments, and restored images
    are no class labels.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if not hook.get('enable'):
        return
    kind, model = type_name(hook), model_class(cfg)
    if kind in ('SegVisualizationHook', 'DetVisualizationHook'):
        hook.draw, out_dir = hook.pop('enable'), hook.pop('out_dir', None)
        if out_dir and kind == 'DetVisualizationHook':
            hook.test_out_dir = str(Path(out_dir).absolute())  # a relative one would be below work_dir
        elif out_dir:
            cfg.visualizer.save_dir = out_dir
    elif kind == 'VisualizationHook' and model is not None and issubclass(model, BaseRestorer):
        hook.type = 'mmebm.RestorationVisualizationHook'


def check_tta(cfg: Config) -> None:
    """Check that ``--tta`` has something to average.

    Args:
        cfg: The config as its file says.

    Raises:
        ValueError: The model predicts no class scores, or the test has no pipeline to flip images in.
    """
    if 'tta_model' in cfg:
        return
    model = model_class(cfg)
    is_classifier = cfg.get('default_scope') not in ('mmseg', 'mmdet')
    if not is_classifier or (model is not None and issubclass(model, BaseSelfSupervisor)):
        raise ValueError(
            f'--tta averages the class scores of a classifier over flipped images; {type_name(cfg.model)} predicts '
            'none, and the config has no tta_model of its own. Leave --tta out'
        )
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if 'pipeline' not in dataset or 'datasets' in dataset:
        raise ValueError(
            '--tta flips images at the end of test_dataloader.dataset.pipeline, which the config does not have '
            'or no image passes through (a ConcatDataset). '
            'Leave --tta out'
        )
