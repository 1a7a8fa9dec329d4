"""Classes of data sets that are used together."""

from collections.abc import Collection

from mmebm.error_text import first_few


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
