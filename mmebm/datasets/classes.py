"""Classes of data sets: the folders that images lie in, and whether they are those of another data set."""

from collections.abc import Collection, Sequence

from mmengine.logging import MMLogger

from mmebm.datasets.listing import Listing, class_names
from mmebm.error_text import counted, first_few


def number_classes(
    listing: Listing, classes: Sequence[str] | None, data_set: str
) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Number a listing's subfolders, in the order of their names, and label its images by them.

    A folder without images, which is named in the log, has a number too.

    Args:
        listing: By ``list_images(..., in_classes=True)``.
        classes: Names of the classes as the config gives them, None if it does not.
        data_set: What messages call the data set.

    Returns:
        The folders' numbers, and the images with theirs.

    Raises:
        ValueError: There are more folders or fewer than names, or the names are the folders' in another order.
    """
    folders = class_names(listing.folder)
    if classes is not None and len(classes) != len(folders):
        raise ValueError(
            f'{data_set}: {listing.folder!r} has {counted(len(folders), "folder")} ({first_few(folders)}), but the '
            f'config names {len(classes)} classes ({first_few(classes)}); correct `metainfo`, or leave it out'
        )
    check_order(folders, classes or (), f'{data_set}: the folders in {listing.folder!r} and `metainfo`')
    numbers = {name: i for i, name in enumerate(folders)}
    samples = [(image, numbers[image.partition('/')[0]]) for image in listing.images]
    found = {number for _, number in samples}
    empty = [name for name, number in numbers.items() if number not in found]
    if empty:
        MMLogger.get_current_instance().warning(
            f'{data_set}: {len(empty)} of {counted(len(folders), "class folder")} in {listing.folder!r} without an '
            f'image: {first_few(empty)}. They count as classes all the same.'
        )
    return numbers, samples


def check_order(classes: Sequence[str], others: Sequence[str], places: str) -> None:
    """Check that two lists of the same classes number them alike; others may name them differently, as titles do.

    Args:
        classes: Names of one list.
        others: Of the other.
        places: Where the two are from, with which the error starts.

    Raises:
        ValueError: They hold the same names in another order.
    """
    if [*classes] != [*others] and sorted(classes) == sorted(others):
        raise ValueError(
            f'{places} name the same classes in another order, which numbers them: {first_few(classes)}, and '
            f'{first_few(others)}. Leave out a list in `metainfo`, or rename or relabel one of them'
        )


def check_same_classes(classes: Collection[str], others: Collection[str], requirement: str) -> None:
    """Check that two data sets, each of which numbers its own classes, have the same ones.

    Were a class missing from one of them, a label would mean another class there, and scores would be wrong without an
    error.

    Args:
        classes: Names of one data set's.
        others: Names of the other's.
        requirement: What the data sets are and must have, with which the error starts.

    Raises:
        ValueError: They differ.
    """
    different = sorted({*classes} ^ {*others})
    if different:
        raise ValueError(f'{requirement}; {len(different)} are in one of them alone: {first_few(different)}')
