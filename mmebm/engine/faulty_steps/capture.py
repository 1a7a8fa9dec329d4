"""Files with all that a faulty step was computed from."""

import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmebm.engine.faulty_steps.guard import Fault
from mmebm.output_files import write_atomically
from mmebm.unpickling import unpickle

# Of the config, what computes a step.
SECTIONS = ('model', 'data_preprocessor', 'default_scope', 'optim_wrapper')

# Classes of the samples in a batch, by module.
SAMPLES = {
    'mmengine.structures': ('BaseDataElement', 'InstanceData', 'LabelData', 'PixelData'),
    'mmpretrain.structures': ('DataSample', 'MultiTaskDataSample'),
    'mmseg.structures': ('SegDataSample',),
    'mmdet.structures': ('DetDataSample',),
    'mmdet.structures.bbox': ('HorizontalBoxes',),
    'mmdet.structures.mask': ('BitmapMasks', 'PolygonMasks'),
}


def save_capture(path: Path, fault: Fault, model: nn.Module, cfg: Config, place: dict[str, int]) -> None:
    """Write a capture.

    Args:
        path: The file.
        fault: What was wrong with which batch.
        model: With the weights before the step.
        cfg: The training's config.
        place: Epoch, iteration and rank.

    Raises:
        OSError: It could not be written, and nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        place=place,
        fault=fault.text,
        losses=fault.losses,
        is_first=bool(getattr(model, '_is_first_batch', False)),
        files=paths_of(fault.batch),
        config={key: plain(cfg[key]) for key in SECTIONS if cfg.get(key) is not None},
        state_dict={key: value.cpu() for key, value in model.state_dict().items()},
        batch=on_cpu(fault.batch),
        random=fault.random,
    )
    buffer = io.BytesIO()  # torch would report a full disk by another error, and leave a part of the file
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def read_capture(path: str | Path) -> dict[str, Any]:
    """The content of a capture.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no capture, or pickles more than samples and tensors.
    """
    content = unpickle(path, also=[*_sample_classes()])
    missing = {'state_dict', 'batch', 'random', 'config'} - (content.keys() if isinstance(content, dict) else set())
    if missing:
        raise ValueError(f'{path} is no capture of a faulty step: it has no {", ".join(sorted(missing))}')
    return content


def paths_of(batch: Any) -> list[str]:
    """Paths of the images in a batch, those that are known."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    samples = samples if isinstance(samples, (list, tuple)) else []
    return [path for path in (sample.get('img_path') for sample in samples) if path]


def on_cpu(node: Any) -> Any:
    """A batch with its tensors on the CPU."""
    if isinstance(node, (Tensor, BaseDataElement)):
        return node.cpu()
    if isinstance(node, dict):
        return {key: on_cpu(value) for key, value in node.items()}
    return type(node)(map(on_cpu, node)) if type(node) in (list, tuple) else node


def plain(node: Any) -> Any:
    """A config's node as plain containers; other objects as texts."""
    if isinstance(node, (dict, ConfigDict)):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(map(plain, node))
    return node if node is None or isinstance(node, (bool, int, float, str)) else str(node)


def _sample_classes() -> Iterator[type]:
    for module, names in SAMPLES.items():
        try:
            found = import_module(module)
        except ImportError:
            continue
        yield from (getattr(found, name) for name in names if hasattr(found, name))
