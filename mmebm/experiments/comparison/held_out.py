"""The last figures: scored on images that nothing was chosen by, with the correctness of each image."""

from collections.abc import Sequence
from pathlib import Path

import mmengine
from mmengine.config import Config
from torch import Tensor

from mmebm.datasets import ImageFolder
from mmebm.evaluation.frozen_accuracy import KNNAccuracy, knn_classes, linear_classes
from mmebm.experiments.comparison.scoring import Scoring, as_row, evaluated, finetuned_top1
from mmebm.experiments.downstream.frozen import extract
from mmebm.experiments.downstream.trainings import Run
from mmebm.experiments.results import stamp, write_json


class HeldOut(Scoring):
    """Scores on a folder outside the data, and leaves ``held_out_N.json`` beside ``point_N.json``.

    That file has ``method``, ``seed``, ``epoch``, the paths of ``images`` below the folder, and whether each is
    classified right, in ``correct``, by quality.

    Args:
        folder: The images, in one folder per class.
        train: Those of training.
        indices: Which of these are used; None: all.

    Raises:
        FileNotFoundError: The folder is missing, or holds no images.
        ValueError: It is the folder of training, or a part of it.
    """

    def __init__(self, folder: Path, train: Path, indices: Sequence[int] | None) -> None:
        super().__init__(folder.resolve(), indices)
        if not folder.is_dir():
            raise FileNotFoundError(f'--final {folder}: there is no such folder; it needs one folder per class')
        if self.folder.is_relative_to(train.resolve()):
            raise ValueError(f'--final {folder}: these are the training images; give a folder of others')

    def use_in(self, cfg: Config) -> None:
        """See ``Scoring``."""
        for dataset in evaluated(cfg):
            dataset.update(data_root=str(self.folder), data_prefix='')

    def score(self, run: Run, epoch: int, finetune: bool) -> dict[str, float | None]:
        """See ``Scoring``."""
        bank, queries = extract(Config(run.cfg.to_dict()))
        gathered = KNNAccuracy()
        gathered.process(None, [*bank, *queries])
        train, train_labels, images, labels = gathered.bank_and_queries(gathered.results)
        correct = dict(
            knn_top1=as_bits(knn_classes(train, train_labels, images) == labels),
            linear_top1=as_bits(linear_classes(train, train_labels, images) == labels),
        )
        frozen = {f'frozen/{quality}': 100 * sum(bits) / len(bits) for quality, bits in correct.items()}
        paths = [path.relative_to(self.folder).as_posix() for path in image_paths(run.cfg)]
        finetuned = None
        if finetune:
            finetuned, predictions = self.finetuned(run)
            correct['finetune_top1'] = [predictions[path] for path in paths]
        record = dict(method=run.init, seed=run.seed, epoch=epoch, images=paths, correct=correct)
        write_json(run.folder.parent / f'held_out_{epoch}.json', record)
        return as_row(frozen, finetuned)

    def finetuned(self, run: Run) -> tuple[float, dict[str, int]]:
        """Top-1 in percent after fine-tuning, and whether each image is classified right, by its path.

        Raises:
            RuntimeError: It failed.
        """
        file = run.folder / 'predictions.pkl'
        cfg = Config(run.cfg.to_dict())
        metrics = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
        cfg.val_evaluator = [*metrics, dict(type='mmebm.DumpPredictions', out_file_path=str(file))]
        top1 = finetuned_top1(run._replace(cfg=cfg))
        predictions = mmengine.load(file)
        return top1, {
            Path(sample['img_path']).relative_to(self.folder).as_posix(): int(
                sample['pred_label'] == sample['gt_label']
            )
            for sample in predictions
        }


def image_paths(cfg: Config) -> list[Path]:
    """The validation images of a classifier's config, in order."""
    data = cfg.val_dataloader.dataset
    images = ImageFolder(data.data_root, with_label=True)
    return [Path(images.get_data_info(i)['img_path']) for i in range(len(images))]


def as_bits(values: Tensor) -> list[int]:
    """Booleans (N,) as 0 and 1."""
    return values.int().tolist()


def check_committed() -> None:
    """Check that the figures will be those of a commit.

    Raises:
        ValueError: The working tree differs from its commit.
    """
    commit = stamp()['commit']
    if commit.endswith('+'):
        raise ValueError(f'--final: the code or the configs differ from commit {commit[:-1]}; commit them first')
