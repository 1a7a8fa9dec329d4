"""Reads the published files of DALL-E's tokenizer, pickled modules, without executing anything in them."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmebm.checkpoint import check_fit, check_hash
from mmebm.models.tokenizers.dalle import DALLE

PARTS = ('encoder', 'decoder')

# The only names in a file that are what they say: containers, and how torch puts a tensor together from its storage.
REAL = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
}


class Inert:
    """What all other names become, modules as well as functions: keeps its state, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class InertUnpickler(pickle.Unpickler):
    """An unpickler that looks up no names but those of ``REAL``."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of a name, or a class that does nothing."""
        return REAL.get((module, name), Inert)


def import_dalle(
    encoder: Path, decoder: Path, out: Path, hashes: Mapping[str, str] | None = None, model: DALLE | None = None
) -> dict[str, str]:
    """Write the weights of both pickles as one file for ``DALLE``, whose metadata has the hashes of their sources.

    Args:
        encoder: The published ``encoder.pkl``.
        decoder: The published ``decoder.pkl``.
        out: The ``.safetensors`` file to write.
        hashes: SHA-256, hexadecimal, that the files must have, by ``encoder`` and ``decoder``.
        model: Of the sizes that they must have; by default those that were published.

    Returns:
        The hashes that the files have.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: A pickle is missing.
        ValueError: ``out`` is no safetensors file; or a pickle has another hash, holds no modules, or other weights.
    """
    if out.suffix != '.safetensors':
        raise ValueError(f'{out}: name a file that ends in .safetensors (--out)')
    if out.exists():
        raise FileExistsError(f'{out} exists; name a new file (--out)')
    found, state = {}, {}
    for part, path in zip(PARTS, (encoder, decoder), strict=True):
        found[part] = check_hash(path, (hashes or {}).get(part))
        state |= {f'{part}.{name}': weight for name, weight in read_pickled_module(path).items()}
    check_fit(state, (model or DALLE()).state_dict(), f'{encoder} and {decoder}', "DALL-E's published tokenizer")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.float().contiguous().clone() for name, weight in state.items()}, out,
              metadata={f'{part}_sha256': value for part, value in found.items()})  # fmt: skip
    return found


def read_pickled_module(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers, by name, of a module that was saved whole by ``torch.save``.

    Raises:
        ValueError: The file is of another kind, damaged, or holds no module.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f'{path} is no file of torch.save (since torch 1.6, those are zip archives)')
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith('constants.pkl') for name in archive.namelist()):
            raise ValueError(f'{path} holds compiled code (TorchScript), which is not read')
    unpickling = SimpleNamespace(__name__='inert', Unpickler=InertUnpickler)
    try:
        module = torch.load(path, map_location='cpu', weights_only=False, pickle_module=unpickling)
        state = dict(weights_of(module))
    except Exception as error:  # whatever a hostile file makes torch raise
        reason = f'{type(error).__name__}: {error}'.partition('. ')[0]
        raise ValueError(f'{path} is damaged, or no pickled module ({reason})') from error
    if not state:
        raise ValueError(f'{path} holds no module with weights, but a {type(module).__name__}')
    return state


def weights_of(module: Any, prefix: str = '') -> list[tuple[str, Tensor]]:
    """Names and values of the parameters and buffers of an inert module."""
    values = vars(module) if isinstance(module, Inert) else {}
    own = {**(values.get('_parameters') or {}), **(values.get('_buffers') or {})}
    weights = [(prefix + name, value.detach()) for name, value in own.items() if isinstance(value, Tensor)]
    for name, child in (values.get('_modules') or {}).items():
        weights += weights_of(child, f'{prefix}{name}.')
    return weights
