"""How the features of a comparison are scored, and on which images: here, on a test folder beside ``train/``."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmebm.datasets import ImageFolder
from mmebm.experiments.downstream.frozen import frozen_metrics
from mmebm.experiments.downstream.trainings import Run, perform, result_rows
from mmebm.experiments.image_folders import datasets_of

FROZEN_METRICS = ('mmebm.KNNAccuracy', 'mmebm.LinearProbeAccuracy')


class Scoring:
    """Scores on a folder of images, with classifiers that are fitted on the training images.

    Args:
        folder: The images, in one folder per class.
        indices: Which of the training images are used; None: all.
    """

    def __init__(self, folder: Path, indices: Sequence[int] | None) -> None:
        self.folder, self.indices = folder, indices

    def use_in(self, cfg: Config) -> None:
        """Let a config, whose data are in place, evaluate on the images that are scored."""
        for dataset in evaluated(cfg):
            dataset.data_prefix = self.folder.name

    def trained(self, method: str) -> Sequence[int] | None:
        """Which of the training images a method, or fine-tuning, trains on; None: all."""
        return self.indices

    def num_images(self) -> int:
        """How many are scored besides training images."""
        return len(ImageFolder(str(self.folder), with_label=True))

    def score(self, run: Run, epoch: int, finetune: bool) -> dict[str, float | None]:
        """Top-1 of the weights that a fine-tuning starts from, in percent, by kNN, linear probe and fine-tuning.

        Args:
            run: The fine-tuning, in a folder within that of the pretraining.
            epoch: Of the pretraining.
            finetune: Whether to do it; else its top-1 is None.

        Raises:
            RuntimeError: It failed.
        """
        scores = frozen_metrics(Config(run.cfg.to_dict()), *FROZEN_METRICS)
        return as_row(scores, finetuned_top1(run) if finetune else None)


def evaluated(cfg: Config) -> Iterable[ConfigDict]:
    """The data sets that a config validates and tests on."""
    return (data for loader in (cfg.get('val_dataloader'), cfg.get('test_dataloader')) for data in datasets_of(loader))


def as_row(frozen: dict[str, float], finetuned: float | None) -> dict[str, float | None]:
    """The qualities as in the rows of a comparison, from the metrics of frozen features."""
    scores = {name.removeprefix('frozen/'): round(value, 3) for name, value in frozen.items()}
    return dict(scores, finetune_top1=finetuned)


def finetuned_top1(run: Run) -> float:
    """Top-1 in percent after fine-tuning, which is done unless it has been.

    Raises:
        RuntimeError: It failed.
    """
    if perform([run], jobs=1, gpus=1):
        raise RuntimeError(f'{run.name} failed, see {run.folder / "log.txt"}')
    return result_rows(run)[0]['value']
