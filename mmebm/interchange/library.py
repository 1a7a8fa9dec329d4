"""Common parts of the exports to timm, transformers and torchvision."""

import importlib.util
import runpy
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmebm.interchange.name_map import Layout, NameMap
from mmebm.interchange.source import Source, as_tokens
from mmebm.interchange.specs import UnsupportedError

LOADER = 'load.py'


@dataclass(frozen=True)
class Family:
    """The counterpart of one of mmpretrain's backbones in another library.

    Attributes:
        names: Names of the weights.
        constructor: Maps the backbone's spec to the arguments of the library's model; rejects what it does not support.
        features: Maps the library's model and images (N, C, H, W) to the last features, as tokens or as a map.
    """

    names: NameMap
    constructor: Callable[[Any], Any]
    features: Callable[[nn.Module, Tensor], Tensor]


class Library(ABC):
    """A library with its own models, and other names for their weights.

    Attributes:
        name: Name of its package.
    """

    name: str

    @abstractmethod
    def family(self, source: Source) -> Family:
        """The counterpart of a backbone.

        Raises:
            UnsupportedError: The library has no such model.
        """

    @abstractmethod
    def build(self, constructor: Any) -> nn.Module:
        """The library's model, without a classifier and with random weights."""

    @abstractmethod
    def save(self, model: nn.Module, constructor: Any, source: Source, folder: Path) -> tuple[str, str]:
        """Write a model's weights and config.

        Returns:
            The code for ``write_loader``: lines of imports, and lines that set ``model``.
        """

    def write(self, source: Source, folder: Path) -> None:
        """Write the backbone as a model of this library, with a ``load.py`` that loads it.

        Raises:
            ImportError: The library is not installed.
            UnsupportedError: The library has no such model.
            ValueError: A weight has no counterpart.
        """
        require(self.name, [self.name])
        family = self.family(source)
        constructor = family.constructor(source.spec)
        model = self.build(constructor)
        theirs = f'the {type(model).__name__} of {self.name}'
        model.load_state_dict(family.names.to_theirs(source.resized.state_dict(), model.state_dict(), theirs))
        write_loader(source, folder, *self.save(model, constructor, source, folder))

    @torch.no_grad()
    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, D) of the model as ``load.py`` loads it."""
        return as_tokens(self.family(source).features(run_loader(folder), images))


def require(target: str, packages: Sequence[str]) -> None:
    """Check that packages are installed.

    Raises:
        ImportError: One is not; the message lists all that are missing.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f'Exporting to {target} needs {" and ".join(missing)}: pip install {" ".join(missing)}')


def no_such_model(library: str, kind: str, known: dict) -> UnsupportedError:
    """The error for a backbone of a type that a library does not have."""
    return UnsupportedError(
        f'A {kind} cannot be exported to {library}, only {", ".join(known)}; mmpretrain, mmseg, mmdet and onnx take '
        'any backbone'
    )


def write_loader(source: Source, folder: Path, imports: str, code: str) -> None:
    """Write ``load.py``: lines of imports, and lines that set ``model``, given ``folder``."""
    title = docstring('Sets `model` to the exported backbone.', source.note)
    (folder / LOADER).write_text(
        f'{title}\n\nfrom pathlib import Path\n\n{imports}\nfolder = Path(__file__).resolve().parent\n{code}'
    )


def run_loader(folder: Path) -> nn.Module:
    """The model that ``load.py`` loads, in evaluation mode."""
    return runpy.run_path(str(folder / LOADER))['model'].eval()


def docstring(title: str, note: str) -> str:
    """A docstring as Python code; an empty note is left out."""
    return f'"""{title}\n\n{textwrap.fill(note, width=110)}\n"""' if note else f'"""{title}"""'


def call_text(function: str, arguments: dict[str, Any]) -> str:
    """A call as Python code."""
    return f'{function}({", ".join(f"{key}={value!r}" for key, value in arguments.items())})'


def output_of(model: nn.Module, module: str, images: Tensor) -> Tensor:
    """The output of a module while the model processes images (N, C, H, W)."""
    outputs = []
    handle = model.get_submodule(module).register_forward_hook(lambda *step: outputs.append(step[-1]))
    model(images)
    handle.remove()
    return outputs[-1]


# Swin concatenates the four positions that it merges. The last axis of norm and reduction is (channel, row, column) in
# mmpretrain and (column, row, channel) in the others.
MERGED = Layout(
    to_theirs=lambda weight: weight.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3),
    to_ours=lambda weight: weight.unflatten(-1, (2, 2, -1)).transpose(-3, -1).flatten(-3),
)
