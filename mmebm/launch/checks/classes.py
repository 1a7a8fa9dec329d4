"""Checks that the data sets of a config number the same classes alike, and that the model has as many."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from mmebm.datasets import ImageFolder
from mmebm.datasets.classes import check_order, check_same_classes
from mmebm.datasets.listing import class_names, is_hidden
from mmebm.error_text import first_few
from mmebm.launch.checks.class_counts import check_class_counts, class_counts
from mmebm.launch.checks.labels import check_label_lists, data_sets, folder_of_classes, noted_classes, packed_classes
from mmebm.model_building import class_of
from mmebm.registry import DATASETS


def check_classes(cfg: Config, sections: Sequence[str]) -> None:
    """Check that training and evaluation find the same folders of classes, and the model has as many classes.

    mmpretrain numbers the folders of each data set separately.

    Args:
        cfg: The merged config.
        sections: The top-level keys whose data sets are compared with those of training, such as ``val_dataloader``.

    Raises:
        ValueError: The folders differ, or the lists of names; a hidden folder would count as a class; or the model has
            another number of classes.
    """
    known = list(class_lists(cfg, 'train_dataloader'))
    for section in ('val_dataloader', 'test_dataloader'):
        if section in sections:
            known += class_lists(cfg, section)
    folders = [(where, names) for where, names in known if isinstance(where, Path)]
    lists = [(where, names) for where, names in known if isinstance(where, str)]
    for where, names in folders[1:]:
        requirement = 'must have the same folders, one per class, since each numbers its own'
        check_same_classes(folders[0][1], names, f'{folders[0][0]} and {where} {requirement}')
    for where, names in lists[1:] if any(class_counts(cfg)) else ():
        if names != lists[0][1]:
            raise ValueError(
                f'{lists[0][0]} and {where} must name the same classes in the same order, which numbers them, not '
                f'{first_few(lists[0][1])} and {first_few(names)}'
            )
    for where, names in known[1:] if any(class_counts(cfg)) else ():
        check_order(known[0][1], names, f'{known[0][0]} and {where}')
    check_label_lists(cfg, ['train_dataloader', *sections])
    for where, names in known:
        check_class_counts(cfg, sections, str(where), names)


def class_lists(cfg: Config, section: str) -> Iterator[tuple[Path | str, list[str]]]:
    """For each data set of a section whose classes are known: their folder, or the key of their list; and their names.

    Raises:
        ValueError: mmpretrain would take a hidden folder for a class.
    """
    scope = cfg.get('default_scope')
    for place, dataset in data_sets((cfg.get(section) or {}).get('dataset'), f'{section}.dataset'):
        kind = class_of(dataset, DATASETS, scope)
        default = (getattr(kind, 'METAINFO', None) or {}).get('classes')
        named = (dataset.get('metainfo') or {}).get('classes', default)
        named = None if isinstance(named, str) else named  # a file
        packed = packed_classes(dataset, kind)
        if packed:
            yield Path(dataset['data_root']), packed
            continue
        noted = noted_classes(dataset, kind)
        if noted:
            yield f'{place}.data_root={dataset["data_root"]}', noted
            continue
        folder = folder_of_classes(dataset, kind)
        if folder is not None:
            names = class_names(folder)
            if not issubclass(kind, ImageFolder):
                check_hidden(folder, place)
            check_order(names, named or (), f'{folder} and {place}.metainfo.classes')
            yield folder, names
        elif named:
            yield f'{place}.metainfo.classes', [*named]


def check_hidden(folder: Path, place: str) -> None:
    """Check that a folder of classes holds no hidden folder.

    Raises:
        ValueError: It does.
    """
    hidden = sorted(path.name for path in folder.iterdir() if is_hidden(path.name) and path.is_dir())
    if hidden:
        raise ValueError(
            f'{folder} holds folders that would count as classes: {first_few(hidden)}; remove them, or set '
            f'{place}.type=mmebm.LabelledFolder, which leaves them out'
        )
