"""Restores the same held-out images again and again during pretraining: pictures, energies, and a line of progress."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmebm.config_tree import nested_dicts
from mmebm.datasets.load_image import BrokenImageError
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.evaluating import evaluating
from mmebm.engine.hooks.measuring_hook import MeasuringHook
from mmebm.evaluation.energy_metric import EnergyMetric
from mmebm.evaluation.restoration_metric import RestorationMetric, split_key
from mmebm.evaluation.token_energy_metric import TokenEnergyMetric
from mmebm.evaluation.token_metric import TokenMetric
from mmebm.model_building import type_name, unwrapped
from mmebm.option_check import check_whole_numbers
from mmebm.registry import HOOKS
from mmebm.visualization.figures import draw_energies
from mmebm.visualization.restoration_sheet import compose, pictures_of

RECORD = 'restorations.json'
BATCH_SIZE = 16
NO_IMAGES = (
    'RestorationProgressHook measures nothing: neither val_dataloader nor test_dataloader has images that are here. '
    'Give it a data set, as dataset=dict(...)'
)
METRICS = {RestorationMetric: '', EnergyMetric: '', TokenMetric: '', TokenEnergyMetric: 'token_'}  # and a prefix

Group = list[tuple[DataSample, list[Tensor]]]  # predictions, each with the images between corrupted and restored


@HOOKS.register_module()
@idle_in_dry_runs
class RestorationProgressHook(MeasuringHook):
    """Restores a fixed set of held-out images before, during and after pretraining, and says what it shows.

    The loss of such a method says little: it depends on the corruption, and may fall while nothing is learned. This
    hook measures what does mean progress. Training is not affected: weights are the same with and without it. For each
    corruption it leaves, in every backend of the visualizer (step = finished epochs or iterations),

    - ``restorations_NAME``, a picture: a row per image, clean, corrupted, up to four steps, restored, and the error
      (black: none; brightest: half the range of values);
    - ``energies``, histograms of clean and corrupted images, of models that have an energy;
    - scalars ``held_out/NAME/...``, those of ``RestorationMetric``, ``EnergyMetric``, ``TokenMetric`` and, with the
      prefix ``token_``, ``TokenEnergyMetric`` as far as the model predicts what they need; also in the message hub.

    ``restorations.json`` beside ``scalars.json`` has each image's energies, for ``tools/report.py``.

    Args:
        dataset: Config of the images, whose pipeline makes what the model's ``predict`` takes. None: that of
            ``val_dataloader``; without one, that of ``test_dataloader``; if its folder is not here, it reads the
            training images, as in training, and log and record say so. Without any, it warns and measures nothing.
        num_images: Number of images, spread evenly over the data set.
        num_pictures: Number of images per corruption that are drawn.
        interval: Epochs, or iterations, between two measurements; start and end are always measured.
        by_epoch: Whether ``interval`` counts epochs; otherwise iterations.

    Raises:
        ValueError: A number is less than 1.
    """

    priority = 'LOW'  # behind FrozenFeatureHook, whose results the line of progress quotes

    def __init__(
        self,
        dataset: dict | None = None,
        num_images: int = 64,
        num_pictures: int = 4,
        interval: int = 1,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, by_epoch)
        check_whole_numbers('RestorationProgressHook', num_images=num_images, num_pictures=num_pictures)
        self.dataset = dataset
        self.num_images = num_images
        self.num_pictures = num_pictures
        self.images: Dataset | None = None  # of the first process

    def before_train(self, runner: Runner) -> None:
        """Chooses the images, says which curves to look at, and measures the initial weights."""
        if not is_main_process():
            return
        found = (self.dataset, "the hook's data set") if self.dataset else images_of(runner.cfg)
        if found is None:
            runner.logger.warning(NO_IMAGES)
            return
        config, self.source = found
        with evaluating(runner.model):  # a data set may draw
            self.images = DATASETS.build(config)
            self.indices = sound_indices(self.images, self.num_images)
        runner.logger.info(which_curve(runner, len(self.indices), self.source))
        if runner.iter == 0:
            self._measure_and_log(runner, step=0)

    def _measure_and_log(self, runner: Runner, step: int) -> None:
        if self.images is None or not self.indices:
            return
        model = unwrapped(runner.model)
        with evaluating(model), runner.optim_wrapper.optim_context(model):
            groups = restored_groups(model, self.images, self.indices)
        metrics = {f'held_out/{name}': value for name, value in measured(groups).items()}
        for name, value in metrics.items():
            runner.message_hub.update_scalar(name, value)
        if metrics:
            runner.visualizer.add_scalars(metrics, step=step, file_path='held_out.json')
        entry = dict(step=step, unit='epoch' if self.by_epoch else 'iteration', source=self.source, corruptions={})
        for name, group in groups.items():
            entry['corruptions'][name] = self._draw(runner, name, group, step) | energies_of(group)
        if any('clean' in values for values in entry['corruptions'].values()):
            runner.visualizer.add_image('energies', draw_energies(entry['corruptions']), step)
        file = Path(runner.log_dir, 'vis_data', RECORD)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open('a') as record:
            record.write(json.dumps(entry) + '\n')
        runner.logger.info(f'Progress after {step} {entry["unit"]}s: {progress(runner, metrics)}')

    def _draw(self, runner: Runner, name: str, group: Group, step: int) -> dict[str, Any]:
        """Draw the first images of a corruption; what a reader of the picture needs."""
        rows = [pictures_of(sample, steps) for sample, steps in group[: self.num_pictures]]
        picture = f'restorations_{re.sub(r"[^A-Za-z0-9-]+", "-", name)}'
        runner.visualizer.add_image(picture, compose(rows), step)
        return dict(picture=f'{picture}_{step}.png', rows=len(rows), columns=list(rows[0]))


def images_of(cfg: Mapping[str, Any]) -> tuple[dict, str] | None:
    """The config of a data set of held-out images, and in words where they come from; None if there is none."""
    for section in ('val_dataloader', 'test_dataloader'):
        dataset = (cfg.get(section) or {}).get('dataset')
        if dataset is None:
            continue
        roots = [node['data_root'] for _, node in nested_dicts(dataset) if node.get('data_root')]
        train = cfg['train_dataloader']['dataset']
        root = train.get('data_root')
        if all(Path(place).is_dir() for place in roots):
            is_same = root and _is_all_of(dataset, root)
            words = f'the training images, which {section} reads too' if is_same else f'the data set of {section}'
            return dataset, words
        if root and len(roots) == 1 and 'data_root' in dataset:
            # Read as in training, whatever packs them; a test raises an error for a broken image.
            held_out = dict(train, pipeline=dataset.get('pipeline', []), test_mode=True)
            return held_out, f'the training images ({section} names {roots[0]}, which is not here)'
    return None


def _is_all_of(dataset: Mapping[str, Any], root: str) -> bool:
    """Whether a data set reads all of a folder, rather than a part of it, as ``val/``."""
    is_part = any(dataset.get(key) for key in ('data_prefix', 'ann_file', 'split'))
    return (
        not is_part and bool(dataset.get('data_root')) and Path(dataset['data_root']).resolve() == Path(root).resolve()
    )


def sound_indices(images: Dataset, num_images: int) -> list[int]:
    """Indices of images spread evenly over a data set; a warning names those of them that are broken, left out here."""
    sound = []
    for index in np.linspace(0, len(images) - 1, min(num_images, len(images))).round().astype(int).tolist():
        try:
            images[index]
        except BrokenImageError as error:
            print_log(f'RestorationProgressHook leaves out a broken image: {error}', 'current', logging.WARNING)
        else:
            sound.append(index)
    return sound


def restored_groups(model: nn.Module, images: Dataset, indices: Sequence[int]) -> dict[str, Group]:
    """Predictions of images of a data set, by corruption."""
    groups: dict[str, Group] = defaultdict(list)
    for part in (indices[i : i + BATCH_SIZE] for i in range(0, len(indices), BATCH_SIZE)):
        batch = default_collate([images[index] for index in part])
        samples = model.val_step(batch)
        for sample, steps in zip(samples, steps_between(model, batch, len(samples)), strict=True):
            groups[sample.get('corruption') or 'all'].append((sample.cpu(), steps))
    return dict(sorted(groups.items()))


def steps_between(model: nn.Module, batch: dict, num_images: int) -> list[list[Tensor]]:
    """For each image those between the corrupted and the restored one, (C, H, W) in pixel units; none of one step."""
    if getattr(model, 'num_steps', 1) == 1 or not hasattr(model, 'restore'):
        return [[] for _ in range(num_images)]
    inputs = model.data_preprocessor(batch)['inputs']
    if hasattr(model, 'corrupted_alike'):
        inputs, _ = model.corrupted_alike(inputs)
    corrupted = inputs if isinstance(inputs, Tensor) else inputs[0]
    between = torch.stack(model.restore(corrupted).images[1:-1], dim=1)  # (N, K - 1, C, H, W)
    return [list(steps) for steps in model.to_pixels(between).cpu()]


def measured(groups: Mapping[str, Group]) -> dict[str, float]:
    """The metrics whose needs the predictions meet, by ``corruption/name``."""
    samples = [sample.to_dict() for group in groups.values() for sample, _ in group]
    values = {}
    for kind, prefix in METRICS.items():
        if all(field in sample for sample in samples for field in kind.fields):
            metric = kind()
            metric.process(None, samples)
            for name, value in metric.compute_metrics(metric.results).items():
                group, _, name = name.rpartition('/')
                values[f'{group}/{prefix}{name}'] = value
    return values


def energies_of(group: Group) -> dict[str, list[float]]:
    """Energies of the clean, corrupted and restored images of a group; none if the model predicts none."""
    samples = [sample for sample, _ in group]
    if not all('energies' in sample and 'clean_energy' in sample for sample in samples):
        return {}
    return dict(
        clean=[float(sample.clean_energy) for sample in samples],
        corrupted=[float(sample.energies[0]) for sample in samples],
        restored=[float(sample.energies[-1]) for sample in samples],
    )


def which_curve(runner: Runner, num_images: int, source: str) -> str:
    """A sentence on what to look at in this run."""
    probes = [hook for hook in runner.cfg.get('custom_hooks') or [] if type_name(hook) == 'FrozenFeatureHook']
    if not probes:
        features = 'nothing here measures the features: add FrozenFeatureHook, with a bank if some images have labels'
    elif any(hook.get('bank') for hook in probes):
        features = 'features improve while frozen/linear_top1 rises above its value before training'
    else:
        features = (
            'features gain dimensions while frozen/rankme rises, which is no substitute for a probe of labelled images'
        )
    return (
        f'What means progress: restoration improves while held_out/*/psnr_restored_db rises above psnr_corrupted_db '
        f'({num_images} images of {source}); {features}. The loss alone shows neither.'
    )


def progress(runner: Runner, metrics: Mapping[str, float]) -> str:
    """What changed, in few words: the gain of each corruption in dB, tokens detected, probes, and RankMe."""
    parts = []
    for key, value in metrics.items():
        _, corruption, name = split_key(key)
        if name == 'psnr_restored_db':
            parts.append(f'{corruption} {value - metrics[key.replace("restored", "corrupted")]:+.2f} dB')
        elif name == 'detection_auroc':
            parts.append(f'AUROC of replaced tokens {value:.3f}')
        elif name == 'token_auroc':
            parts.append(f'{corruption} AUROC of patches {value:.3f}')
    probes = dict(linear_top1=('linear probe', '%'), knn_top1=('kNN', '%'), rankme=('RankMe', ''))
    for name, (title, unit) in probes.items():
        history = runner.message_hub.log_scalars.get(f'frozen/{name}')
        if history is not None:
            values: Sequence[float] = history.data[0]
            parts.append(f'{title} {values[-1]:.1f}{unit} (first {values[0]:.1f}{unit})')
    return ', '.join(parts) or 'the model predicts nothing that could be measured'
