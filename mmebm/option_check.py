"""Checks of options that are numbers, before they fail somewhere else."""

import math
from numbers import Integral, Real
from typing import Any


def check_whole_numbers(owner: str, least: int = 1, **options: Any) -> None:
    """Check that options are whole numbers.

    Args:
        owner: Whose options they are, for the error.
        least: The lowest that they may be.
        **options: By name.

    Raises:
        ValueError: One is not; the message names it.
    """
    for name, value in options.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f'{owner}: {name} must be a whole number of at least {least}, not {value!r}')


def check_not_negative(owner: str, **options: Any) -> None:
    """Check that options are finite and at least 0; arguments and errors as of ``check_whole_numbers``."""
    for name, value in options.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise ValueError(f'{owner}: {name} must be a number of at least 0, not {value!r}')


def check_positive(owner: str, **options: Any) -> None:
    """Check that options are positive and finite; arguments and errors as of ``check_whole_numbers``."""
    for name, value in options.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ValueError(f'{owner}: {name} must be a positive number, not {value!r}')
