"""Writes predictions to a file, one after another and without images."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.logging import MMLogger
from mmengine.utils import apply_to

from mmebm.pixels import PICTURES
from mmebm.registry import METRICS


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` that keeps of each prediction no more memory than it needs.

    Predictions are views of a batch, which mmengine would keep, and write, whole with each of them.

    Args:
        out_file_path: The file, ending in ``.pkl`` or ``.pickle``.
        images: Whether to keep the images of a prediction (``corrupted``, ``restored``, ``clean``, ...), which take a
            thousand times the memory of all else.
        **kwargs: As in mmengine's ``DumpResults``.
    """

    def __init__(self, out_file_path: str, images: bool = False, **kwargs) -> None:
        super().__init__(out_file_path, **kwargs)
        self.leave_out = () if images else PICTURES
        self.left_out: set[str] = set()

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Copy the predictions of a batch to the CPU."""
        for prediction in predictions:
            self.left_out |= prediction.keys() & set(self.leave_out)
            kept = {key: value for key, value in prediction.items() if key not in self.leave_out}
            self.results.append(apply_to(kept, lambda value: isinstance(value, torch.Tensor), on_cpu))

    def compute_metrics(self, results: list) -> dict:
        """Write the file."""
        if self.left_out:
            MMLogger.get_current_instance().info(
                f'{self.out_file_path} is without the images {sorted(self.left_out)}; to have them, add '
                "dict(type='mmebm.DumpPredictions', out_file_path=FILE, images=True) to test_evaluator"
            )
        return super().compute_metrics(results)


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU, with memory of its own."""
    return tensor.detach().to('cpu', copy=True)
