"""Choice of each method's learning rate on the training images alone."""

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from sklearn.model_selection import StratifiedKFold

from mmebm.datasets import ImageFolder
from mmebm.experiments.comparison.scoring import FROZEN_METRICS, Scoring, as_row, evaluated, finetuned_top1
from mmebm.experiments.comparison.settings import DOWNSTREAM
from mmebm.experiments.comparison.tables import QUALITIES
from mmebm.experiments.downstream.frozen import extract, frozen_metrics, score
from mmebm.experiments.downstream.trainings import Run
from mmebm.experiments.results import markdown_table, mean_and_std_text, write_json

FOLDS = 5
LABELLED = 'supervised'  # the method that learns from labels before it is scored
FILE = 'selection.json'


class CrossValidation(Scoring):
    """Scores on training images: frozen features by cross-validation, fine-tuning on the first fold of it.

    A supervised training has seen the labels of all images that it trained on. Therefore it trains on the other folds,
    and its frozen features too are scored on the first fold alone.

    Args:
        folder: The training images, in one folder per class.
        indices: Which of them are used; None: all.

    Raises:
        ValueError: A class has fewer images than there are folds.
    """

    def __init__(self, folder: Path, indices: Sequence[int] | None) -> None:
        super().__init__(folder, indices)
        images = ImageFolder(str(folder), with_label=True)
        used = np.arange(len(images)) if indices is None else np.asarray(indices)
        labels = np.asarray(images.get_gt_labels())[used]
        rare = [name for i, name in enumerate(images.CLASSES) if (labels == i).sum() < FOLDS]
        if rare:
            raise ValueError(
                f'--select: {folder} needs {FOLDS} images of each class, one per fold; {rare[0]} has fewer'
            )
        kept, scored = folds(labels)[0]
        self.kept, self.scored = used[kept].tolist(), used[scored].tolist()

    def use_in(self, cfg: Config) -> None:
        """See ``Scoring``; no config names another folder any more."""
        super().use_in(cfg)
        for dataset in evaluated(cfg):
            dataset.indices = self.scored

    def trained(self, method: str) -> Sequence[int] | None:
        """See ``Scoring``."""
        return self.kept if method in (DOWNSTREAM, LABELLED) else self.indices

    def num_images(self) -> int:
        """See ``Scoring``."""
        return 0

    def score(self, run: Run, epoch: int, finetune: bool) -> dict[str, float | None]:
        """See ``Scoring``."""
        cfg = Config(run.cfg.to_dict())
        if run.init == LABELLED:
            scores = frozen_metrics(cfg, *FROZEN_METRICS)
        else:
            scores = cross_validated([sample for part in extract(cfg) for sample in part], *FROZEN_METRICS)
        return as_row(scores, finetuned_top1(run) if finetune else None)


def folds(labels: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds, the same in each call: positions of what is fitted and of what is scored."""
    return [*StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(np.zeros(len(labels)), labels)]


def cross_validated(samples: Sequence[dict], *metrics: str) -> dict[str, float]:
    """Metrics of frozen features as means over the folds, each scored by classifiers fitted on the others.

    Args:
        samples: As the metrics take them; their ``subset`` does not matter.
        metrics: Types of metrics of frozen features.
    """
    scores = []
    for kept, _ in folds([int(sample['gt_label']) for sample in samples]):
        bank = {*kept.tolist()}
        divided = [dict(sample, subset='train' if i in bank else 'test') for i, sample in enumerate(samples)]
        scores.append(score(divided, *metrics))
    return {name: statistics.mean(fold[name] for fold in scores) for name in scores[0]}


def last_points(rows: Sequence[dict], method: str, rate: float | None) -> dict[int, dict]:
    """The last row of each seed, of a method with a learning rate."""
    chosen = [row for row in rows if (row['method'], row['learning_rate']) == (method, rate)]
    return {row['seed']: row for row in sorted(chosen, key=lambda row: row['epoch'])}


def choose(
    rows: Sequence[dict],
    configurations: Mapping[str, Sequence[float | None]],
    seeds: Collection[int],
    failed: Collection[tuple[str, float | None, int]] = (),
) -> dict[str, dict]:
    """The learning rate of each method, by the mean over seeds of the linear probe at the last point.

    Args:
        rows: One per method, learning rate, seed and point.
        configurations: The learning rates that are chosen from, by method; None where nothing is trained.
        seeds: That each configuration needs.
        failed: Trainings that failed, as method, learning rate and seed; such a configuration is not chosen.

    Returns:
        By method: ``learning_rate``, ``linear_top1`` and ``configurations``, the number of those that were tried, by
        earlier calls too. Methods that are not finished, or of which each configuration has failed, have none.
    """
    chosen = {}
    for method, rates in configurations.items():
        means, finished = {}, True
        last = max((row['epoch'] for row in rows if row['method'] == method), default=0)
        for rate in rates:
            if any((method, rate, seed) in failed for seed in seeds):
                continue
            points = last_points(rows, method, rate)
            if all(seed in points and points[seed]['epoch'] == last for seed in seeds):
                means[rate] = statistics.mean(points[seed]['linear_top1'] for seed in seeds)
            else:
                finished = False
        if means and finished:
            best = max(means, key=lambda rate: means[rate])
            tried = {*rates, *(row['learning_rate'] for row in rows if row['method'] == method)}
            chosen[method] = dict(learning_rate=best, linear_top1=round(means[best], 3), configurations=len(tried))
    return chosen


def selection_table(rows: Sequence[dict], chosen: Mapping[str, dict]) -> str:
    """Qualities of each configuration at its last point, as Markdown; what is chosen is in bold."""
    lines = []
    for method, rate in dict.fromkeys((row['method'], row['learning_rate']) for row in rows):
        last = last_points(rows, method, rate).values()
        qualities = ([row[quality] for row in last if row[quality] is not None] for quality in QUALITIES)
        text = '-' if rate is None else f'{rate:g}'
        is_chosen = method in chosen and chosen[method]['learning_rate'] == rate
        tried = str(chosen[method]['configurations']) if is_chosen else ''
        cells = [f'**{text}**' if is_chosen else text, tried, str(len(last)), *map(mean_and_std_text, qualities)]
        lines.append([f'`{method}`', *cells])
    columns = ['method', 'learning rate', 'chosen among', 'seeds', *QUALITIES.values()]
    return markdown_table(columns, lines)


def write_selection(
    folder: Path, rows: Sequence[dict], chosen: Mapping[str, dict], backbone: str, methods: Sequence[str]
) -> None:
    """Write ``selection.json`` and ``selection.md``, which names those methods for which nothing is chosen."""
    write_json(folder / FILE, dict(backbone=backbone, chosen=chosen, rows=rows))
    text = (
        f'Top-1 (%) at the last point, on training images alone: kNN and linear probe by {FOLDS}-fold cross-validation '
        f'(`{LABELLED}`: on the first fold), fine-tuning on the first fold. In bold: the best linear probe.'
    )
    missing = ', '.join(f'`{method}`' for method in methods if method not in chosen)
    if missing:
        text += f' Nothing is chosen for {missing}: trainings have failed, or are not as far as others here.'
    (folder / 'selection.md').write_text(f'{text}\n\n{selection_table(rows, chosen)}\n')


def read_selection(path: Path, methods: Sequence[str], backbone: str) -> dict[str, float]:
    """The chosen learning rates by method, of those that are trained.

    Args:
        path: The file ``selection.json`` or its folder.
        methods: That need one.
        backbone: For which it must have been chosen.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no selection, or of another backbone, or lacks a method.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f'--selection {path}: there is no such file; --select writes it into its --work-dir')
    try:
        selection = json.loads(path.read_text())
        chosen, chosen_for = selection['chosen'], selection['backbone']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'--selection {path}: not a file that --select has written') from error
    if chosen_for != backbone:
        raise ValueError(f'--selection {path}: chosen for --backbone {chosen_for}, not {backbone}')
    for method in methods:
        if method not in chosen:
            raise ValueError(f'--selection {path}: nothing is chosen for {method}; finish --select with it')
    return {method: chosen[method]['learning_rate'] for method in methods}
