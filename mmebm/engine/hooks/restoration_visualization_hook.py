"""Draws restored images beside the corrupted and the clean ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.runner import Runner
from mmpretrain.engine import VisualizationHook
from mmpretrain.structures import DataSample
from numpy.typing import NDArray

from mmebm.pixels import PICTURES
from mmebm.registry import HOOKS
from mmebm.visualization.figures import to_picture
from mmebm.visualization.restoration_sheet import in_color


@HOOKS.register_module()
class RestorationVisualizationHook(VisualizationHook):
    """mmpretrain's ``VisualizationHook`` for models that predict images: clean, corrupted and restored, side by side.

    ``tools/test.py --show-dir FOLDER`` writes one picture per image, ``NUMBER_FILE_STEP.png``, where NUMBER counts the
    images of the test, and ``--show`` opens a window. The arguments are those of mmpretrain's hook: ``enable``,
    ``interval``, ``show`` and ``out_dir``. Of several processes, the first one draws its images.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self._count = 0

    before_test_epoch = before_val_epoch

    def _draw_samples(
        self, batch_idx: int, data_batch: dict, data_samples: Sequence[DataSample], step: int = 0
    ) -> None:
        if not self.enable:
            return
        for sample in data_samples:
            if self._count % self.interval == 0:
                self._draw(sample, step)
            self._count += 1

    def _draw(self, sample: DataSample, step: int) -> None:
        name = f'{self._count}_{Path(sample.get("img_path", "")).stem or sample.get("corruption", "image")}'
        file = {} if self.out_dir is None else dict(out_file=str(Path(self.out_dir, f'{name}_{step}.png')))
        # No labels over the images, though a data set may have them.
        options = self.draw_args | file | dict(draw_gt=False, draw_pred=False)
        self._visualizer.visualize_cls(side_by_side(sample), sample, name=name, step=step, **options)


def side_by_side(sample: DataSample) -> NDArray[np.uint8]:
    """The pictures that a prediction has, of the clean, corrupted and restored image and the like, as one (H, W, 3)."""
    pictures = [to_picture(sample.get(name)) for name in PICTURES if name in sample]
    return np.hstack([in_color(picture) for picture in pictures])
