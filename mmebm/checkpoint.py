"""Reads checkpoints without executing code from them, and reports what does not fit a model."""

import ast
import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmebm.config_data import running_options
from mmebm.error_text import first_few
from mmebm.misfit import Misfit
from mmebm.model_building import complete_model_config
from mmebm.unpickling import unpickle

# Keys under which training frameworks store the weights.
STATE_KEYS = ('state_dict', 'model', 'model_state', 'teacher')


class Checkpoint(NamedTuple):
    """The weights of a checkpoint, and metadata.

    Attributes:
        path: Path of the file.
        state: All weights and buffers, on the CPU, by name.
        meta: mmengine's metadata, such as the config's text under ``cfg``; empty in other files.
        key: Under which the file holds the weights; None: the file is a state dict.
    """

    path: Path
    state: dict[str, Tensor]
    meta: dict[str, Any]
    key: str | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of mmengine, a state dict, or a ``.safetensors`` file, with ``weights_only=True``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, is no checkpoint, or pickles a class that may execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No checkpoint "{path}"')
    return _with_weights(path, _read_safetensors(path) if path.suffix == '.safetensors' else unpickle(path))


def read_loadable(path: str | Path) -> Checkpoint:
    """Read a checkpoint in which mmengine finds the weights, when it loads the file; an address is downloaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As ``read_checkpoint``; or mmengine, which would load nothing, looks for them elsewhere.
    """
    if ':' in str(path):  # https://, torchvision://, which mmengine's loading caches
        checkpoint = _with_weights(Path(path), CheckpointLoader.load_checkpoint(str(path), map_location='cpu'))
    else:
        checkpoint = read_checkpoint(path)
    if checkpoint.key not in (None, 'state_dict') or checkpoint.path.suffix == '.safetensors':
        where = f'under "{checkpoint.key}"' if checkpoint.key else 'as safetensors'
        raise ValueError(
            f'{path} holds its weights {where}, where mmengine does not load them from. Save them once more: '
            'torch.save(dict(state_dict=mmebm.checkpoint.read_checkpoint(FILE).state), NEW_FILE); '
            "tools/import_weights.py also translates other libraries' names"
        )
    return checkpoint


def _with_weights(path: Path, content: Any) -> Checkpoint:
    """A file's content as a checkpoint."""
    is_dict = isinstance(content, Mapping)
    meta = content.get('meta') if is_dict else None
    for key, state in [(key, content.get(key)) for key in STATE_KEYS] + [(None, content)] if is_dict else []:
        if isinstance(state, Mapping) and state and all(_is_weight(*item) for item in state.items()):
            return Checkpoint(path, dict(state), meta if isinstance(meta, dict) else {}, key)
    found = f'a dict of {first_few([*content])}' if is_dict else f'a {type(content).__name__}'
    raise ValueError(f'{path} is no checkpoint: it holds {found}, and no weights under {first_few(STATE_KEYS)}')


def check_hash(path: str | Path, expected: str | None) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another than expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No file "{path}"')
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    found = digest.hexdigest()
    if expected and found != expected.lower():
        raise ValueError(f'{path} has the SHA-256 {found}, not {expected}: download it again, or ask whose file it is')
    return found


def part(checkpoint: Checkpoint, prefix: str = 'backbone.') -> dict[str, Tensor]:
    """The weights whose names start with the prefix, by names without it; all weights if it is empty.

    Raises:
        ValueError: There are none; the message lists the prefixes found.
    """
    if prefix and not prefix.endswith('.'):
        prefix += '.'  # as mmengine does
    state = {key[len(prefix) :]: value for key, value in checkpoint.state.items() if key.startswith(prefix)}
    if not state:
        found = Counter(key.partition('.')[0] for key in checkpoint.state)
        raise ValueError(
            f'{checkpoint.path} has no weights under "{prefix}": its names start with '
            f'{first_few([f"{name} ({count})" for name, count in found.items()])}. '
            'A pretraining checkpoint of mmebm, MAE or SimMIM holds its network under "backbone."'
        )
    return state


def check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, model: str) -> None:
    """Check that weights fit a model: the same names with the same shapes.

    Args:
        state: The weights.
        expected: The model's ``state_dict``.
        source: Origin of the weights, for the error.
        model: Description of the model, for the error.

    Raises:
        ValueError: Names or shapes differ; the message lists the first ``SHOWN`` of each kind.
    """
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    wanted = {key: tuple(value.shape) for key, value in expected.items()}
    differing = [key for key in shapes if key in wanted and shapes[key] != wanted[key]]
    misfit = Misfit(
        missing=[key for key in wanted if key not in shapes],
        unexpected=[key for key in shapes if key not in wanted],
        reshaped={key: f'{shapes[key]}, not {wanted[key]}' for key in differing},
    )
    if any(misfit):
        raise ValueError(f'{source} is of another architecture than {model}: {misfit}')


def model_config(
    checkpoint: Checkpoint, advice: str = 'give the config that it was trained with (--config)'
) -> dict[str, Any]:
    """The ``model`` of the config that mmengine stored in a checkpoint, with the config's ``data_preprocessor``.

    The config is read as data: nothing in it is executed.

    Args:
        checkpoint: From mmengine.
        advice: What to do where there is none, for the error.

    Raises:
        ValueError: There is no config, or its model does not consist of literals only.
    """
    values = stored_values(checkpoint, ('data_preprocessor', 'model'), advice)
    if isinstance(values.get('model'), dict):
        return complete_model_config(values)
    raise ValueError(f'The config in {checkpoint.path} has no model; {advice}')


def stored_values(checkpoint: Checkpoint, names: Sequence[str], advice: str) -> dict[str, Any]:
    """Top-level values of the config that mmengine stored in a checkpoint, those that it has; read as data.

    Raises:
        ValueError: There is no config, a value does not consist of literals only, or one would run code.
    """
    text = checkpoint.meta.get('cfg')
    if not isinstance(text, str):
        raise ValueError(f'{checkpoint.path} does not say with which config it was trained; {advice}')
    try:
        nodes = _assignments(text)
        values = {name: _literal(nodes[name]) for name in names if name in nodes}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'The config in {checkpoint.path} cannot be read as data ({error}); {advice}') from error
    if faults := [*running_options(values)]:
        raise ValueError(f'The config in {checkpoint.path} is refused: {first_few(faults)}. If you trust it, {advice}')
    return values


def settings(text: str) -> dict[str, Any]:
    """A config's top-level keys from its text, those that consist of literals; nothing in it is executed."""
    values = {}
    for name, node in _assignments(text).items():
        with contextlib.suppress(ValueError):
            values[name] = _literal(node)
    return values


def loading_configs(init_cfg: dict | Sequence[dict] | None) -> list[dict]:
    """Those of an ``init_cfg``, one config or a list of them, that ask for weights from a file."""
    configs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
    return [config for config in configs if config.get('type') in ('Pretrained', PretrainedInit)]


def loads_weights(module: nn.Module) -> bool:
    """Whether a module's ``init_cfg`` asks for weights from a file."""
    return bool(loading_configs(getattr(module, 'init_cfg', None)))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f'{path} is truncated or no safetensors file ({error})') from error


def _assignments(text: str) -> dict[str, ast.expr]:
    return {ast.unparse(s.targets[0]): s.value for s in ast.parse(text).body if isinstance(s, ast.Assign)}


def _literal(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.List(items):
            return [_literal(item) for item in items]
        case ast.Tuple(items):
            return tuple(_literal(item) for item in items)
        case ast.Dict(keys, values):
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(ast.Name('dict'), [], keywords) if all(keyword.arg for keyword in keywords):
            return {keyword.arg: _literal(keyword.value) for keyword in keywords}
    raise ValueError(f'"{ast.unparse(node) if node else "**"}" is no literal')


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)
