"""Checks that a model has as many classes as its data."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config

from mmebm.error_text import counted, first_few
from mmebm.model_building import type_name

# The parts of classifiers, segmentors and detectors that have an output for each class.
HEADS = ('head', 'decode_head', 'auxiliary_head', 'bbox_head', 'roi_head.bbox_head', 'roi_head.mask_head')


def class_counts(cfg: Config) -> Iterator[tuple[str, int]]:
    """Each number of classes in a config's model by its dotted key; none for a model without classes."""
    model = cfg.get('model') or {}
    for place in HEADS:
        head = model
        for name in place.split('.'):
            head = head.get(name) if isinstance(head, dict) else None
        several = isinstance(head, list)
        for i, part in enumerate(head if several else [head]):
            if isinstance(part, dict) and isinstance(part.get('num_classes'), int):
                yield f'model.{place}{f".{i}" if several else ""}.num_classes', part['num_classes']
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mixes = (model.get('train_cfg') or {}).get('augments') or preprocessor.get('to_onehot')  # which it reads it for
    if mixes and isinstance(preprocessor.get('num_classes'), int):
        place = 'model.data_preprocessor' if model.get('data_preprocessor') else 'data_preprocessor'
        yield f'{place}.num_classes', preprocessor['num_classes']


def check_class_counts(cfg: Config, sections: Sequence[str], source: str, names: Sequence[str]) -> None:
    """Check that a model with classes has those of a data set, and that its accuracy can be measured.

    Args:
        cfg: The merged config.
        sections: The top-level keys of the data sets in use, such as ``val_dataloader``.
        source: Where the classes are from, a folder or a key.
        names: Of the classes.

    Raises:
        ValueError: The numbers differ, or accuracy among the first k is asked for with fewer classes than k; says what
            to set.
    """
    counts = dict(class_counts(cfg))
    wrong = [place for place, number in counts.items() if number != len(names)]
    if wrong:
        options = ' '.join(f'{place}={len(names)}' for place in wrong)
        raise ValueError(
            f'{source} has {counted(len(names), "class")} ({first_few(names)}), but {wrong[0]} is '
            f'{counts[wrong[0]]}: set --cfg-options {options}'
        )
    for place, largest in accuracies(cfg, sections) if counts else ():
        if largest > len(names):
            raise ValueError(
                f'{place} asks for the accuracy of the first {largest} classes, but {source} has {len(names)} '
                f'({first_few(names)}): set --cfg-options {place}=1'
            )


def check_largest_label(cfg: Config, file: str, largest: int) -> None:
    """Check that a model with classes has one for every label in a file.

    Args:
        cfg: The merged config.
        file: What the labels are from.
        largest: Of the labels, which are counted from 0.

    Raises:
        ValueError: It has not.
    """
    wrong = [place for place, number in class_counts(cfg) if number <= largest]
    if wrong:
        options = ' '.join(f'{place}={largest + 1}' for place in wrong)
        raise ValueError(
            f'{file} has labels up to {largest}, but {wrong[0]} is {dict(class_counts(cfg))[wrong[0]]}: set '
            f'--cfg-options {options}, or more'
        )


def accuracies(cfg: Config, sections: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The largest k of each ``Accuracy`` in the evaluators of sections, by the dotted key of its ``topk``."""
    for section in (name.replace('dataloader', 'evaluator') for name in sections):
        evaluator = cfg.get(section) or {}
        several = isinstance(evaluator, (list, tuple))
        for i, metric in enumerate(evaluator if several else [evaluator]):
            if type_name(metric) == 'Accuracy':
                topk = metric.get('topk', 1)
                yield f'{section}{f".{i}" if several else ""}.topk', topk if isinstance(topk, int) else max(topk)
