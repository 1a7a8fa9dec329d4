"""Wording that errors share."""

import os
from collections.abc import Iterable

# How many names an error lists.
SHOWN = 4


def first_few(names: Iterable) -> str:
    """The first few names, and how many there are if these are not all."""
    names = [printable(str(name)) for name in names]
    more = f', ... ({len(names)} in all)' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def printable(path: str) -> str:
    """A path with its bytes that are no UTF-8, which no log can take, escaped."""
    return os.fsencode(path).decode(errors='backslashreplace')


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    plural = f'{noun}es' if noun.endswith('s') else f'{noun}s'
    return f'{number:,} {noun if number == 1 else plural}'
