"""Lets mmengine load checkpoints without executing code from them.

By its own functions, a file that cannot be unpickled safely is unpickled unsafely, with a warning; a downloaded one is
never unpickled safely; and a resumed training executes the config in ``meta`` as Python.

Torch is not imported before a file is loaded.
"""

from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from mmebm.upstream.after_import import after_import


def install() -> None:
    """Puts the safe reader in place of mmengine's, for all that loads by mmengine once mmebm is imported."""
    after_import('mmengine.runner.checkpoint', _install)


def _install(module: ModuleType) -> None:
    module._safe_torch_load = load
    module.load_url = load_url


def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """What ``mmengine.runner.load_checkpoint`` and its like read, by :func:`mmebm.unpickling.unpickle`.

    Args:
        file: Path, or open file.
        map_location: As in :func:`torch.load`.
        weights_only: False, which mmengine never passes, unpickles anything.

    Raises:
        ValueError: As ``unpickle``.
    """
    import torch

    from mmebm.unpickling import unpickle

    if weights_only is False:
        return torch.load(file, map_location=map_location, weights_only=False)
    return without_program(unpickle(file, map_location))


def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True, **_: Any) -> Any:
    """The checkpoint at an address, which is kept in torch's cache (or in ``model_dir``); else as ``load``."""
    from torch.hub import download_url_to_file, get_dir

    file = Path(model_dir or Path(get_dir(), 'checkpoints'), Path(urlparse(url).path).name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(file), progress=progress)
    return load(str(file), map_location)


def without_program(checkpoint: Any) -> Any:
    """The checkpoint without ``meta.config``, the text of a config, which mmengine would execute to resume."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint
