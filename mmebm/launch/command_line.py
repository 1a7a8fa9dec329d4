"""Reads paths and ``--cfg-options`` of a command line: paths as typed, other options as mmengine does."""

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

# Keys whose value is a path or a name, by their last words. A name such as ``use_checkpoint`` is none.
FOLDER = re.compile(r'(.*\.)?\w*data_root')
PATH = re.compile(r'(.*\.)?(\w*data_root|\w*_dir|\w*_file|checkpoint|load_from|data_prefix(\.\w+)?|outfile_prefix)')
NAME = re.compile(r'(.*\.)?experiment_name')

# What such a value may be instead.
NO_PATH = {'None': None, 'True': True, 'False': False}


def expanded(text: str) -> str:
    """A text with a leading ``~`` replaced by the home folder, which shells leave to us in ``--out=~/x``."""
    return os.path.expanduser(text)  # noqa: PTH111 (a Path would drop the slash at the end of a folder)


def path(text: str) -> Path:
    """A path of the command line."""
    return Path(expanded(text))


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f'{text} is no whole number of at least 1')
    return int(text)


def port(text: str) -> int:
    """A port of TCP.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise ArgumentTypeError(f'{text} is no port, 1 to 65535')
    return int(text)


class OptionAction(DictAction):
    """mmengine's ``DictAction``, but for texts.

    That one drops blanks, splits at commas, and reads folders named ``001`` or ``1e2`` as numbers, so that a run might
    train on another folder. Here the value of a path is what was typed, with ``~`` expanded, and other texts keep their
    blanks.
    """

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the options to those of the namespace; exits with a message at one that is no ``KEY=VALUE``."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in [values] if isinstance(values, str) else values or []:
            try:
                key, value = option(pair)
            except ValueError as error:
                parser.error(f'{option_string} {pair}: {error}')
            options[key] = value
        setattr(namespace, self.dest, options)


def option(pair: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``.

    Raises:
        ValueError: It has no ``=`` or no key, brackets are not closed, or a folder of data is empty.
    """
    key, separator, text = pair.partition('=')
    if not separator or not key:
        raise ValueError('must be KEY=VALUE, without blanks around "=" (a value with blanks needs quotes)')
    if FOLDER.fullmatch(key):
        if not text:
            raise ValueError('names no folder; "." is the present one')
        return key, expanded(text)
    if PATH.fullmatch(key):
        return key, NO_PATH.get(text, expanded(text))
    if NAME.fullmatch(key):
        return key, text
    try:
        value = DictAction._parse_iterable(text)
    except AssertionError as error:  # brackets that are not closed
        raise ValueError(error) from error
    return key, text.strip('\'"') if isinstance(value, str) else value
