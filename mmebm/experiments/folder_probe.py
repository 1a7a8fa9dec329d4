"""What a folder's features are measured by: kNN and a linear probe of its classes or, without any, RankMe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmebm.datasets.listing import class_names, list_images
from mmebm.error_text import counted
from mmebm.model_building import type_name

# Images that are measured, evenly spaced; of five labelled ones, one is a query.
MOST, QUERY_EVERY = 10_000, 5

# Labelled images below which nothing is classified by its neighbours.
FEWEST = 20

Sample = tuple[str, int]  # path below the folder, number of the class


def add_probe(
    cfg: Config, images: Sequence[str], train_folder: Path, test_folder: Path | None, out: Path, interval: int
) -> str:
    """Add a hook to a config that measures the features of a folder's images as they are.

    Args:
        cfg: Of a pretraining, with the data sets of training and test; changed.
        images: Paths below ``train_folder``.
        train_folder: That is trained on.
        test_folder: Images beside it; None if there are none.
        out: For the lists of images that the data sets read.
        interval: Epochs between two measurements.

    Returns:
        In words, what is measured.
    """
    parts = _labelled_parts(images, train_folder, test_folder)
    if parts:
        said, evaluator = 'kNN and a linear probe of the classes, which are the subfolders', None
    else:
        folder = test_folder or train_folder
        chosen = _spread(images if test_folder is None else list_images(str(folder)).images)
        parts = dict(queries=dict(folder=folder, lines=chosen))
        said = f'no classes to probe, so RankMe of {counted(len(chosen), "image")}'
        evaluator = [dict(type='mmebm.RankMe')]
    loaders = {name: _loader(cfg, out / f'probe_{name}.txt', **part) for name, part in parts.items()}
    hook = dict(type='mmebm.FrozenFeatureHook', **loaders, interval=interval)
    cfg.custom_hooks = [*cfg.custom_hooks, hook | (dict(evaluator=evaluator) if evaluator else {})]
    return said


def _labelled_parts(images: Sequence[str], train_folder: Path, test_folder: Path | None) -> dict[str, dict[str, Any]]:
    """Bank and queries of the classes that the subfolders are; empty if they are none, or too few are labelled."""
    classes = class_names(train_folder)
    bank = _spread(_labelled(images, classes))
    folder = train_folder
    if test_folder and class_names(test_folder) == classes:
        folder = test_folder
        queries = _spread(_labelled(list_images(str(folder)).images, classes))
    else:
        queries = bank[::QUERY_EVERY]
        bank = [one for i, one in enumerate(bank) if i % QUERY_EVERY]
    if len(bank) < FEWEST or not queries or len({label for _, label in bank}) < 2:
        return {}
    parts = dict(bank=(train_folder, bank), queries=(folder, queries))
    return {
        name: dict(folder=place, lines=[f'{path} {label}' for path, label in samples], classes=classes)
        for name, (place, samples) in parts.items()
    }


def _labelled(images: Sequence[str], classes: Sequence[str]) -> list[Sample]:
    """The images in folders of classes, and the numbers of these."""
    numbers = {name: i for i, name in enumerate(classes)}
    return [(path, numbers[path.partition('/')[0]]) for path in images if '/' in path]


def _spread(samples: Sequence[Any]) -> list[Any]:
    """At most ``MOST`` of the samples, evenly spaced, of those whose names can be a line of a list for mmengine."""
    names = [sample if isinstance(sample, str) else sample[0] for sample in samples]
    samples = [one for one, name in zip(samples, names, strict=True) if name.isprintable() and name == name.strip()]
    return list(samples[:: max(1, -(-len(samples) // MOST))])


def _loader(
    cfg: Config, file: Path, folder: Path, lines: Sequence[str], classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Config of the loader of a list of images, which is written to ``file``, as the test pipeline makes them."""
    file.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    steps = [step for step in cfg.test_dataloader.dataset.pipeline if type_name(step) != 'CorruptedPair']
    dataset = dict(
        type='mmebm.ImageFolder', data_root=str(folder), ann_file=str(file.resolve()), with_label=bool(classes),
        pipeline=steps,
    )  # fmt: skip
    if classes:
        dataset['metainfo'] = dict(classes=classes)
    return dict(
        dataset=dataset, batch_size=min(64, cfg.train_dataloader.batch_size),
        num_workers=cfg.train_dataloader.num_workers, persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='default_collate'),
    )  # fmt: skip
