"""Exports a backbone, and verifies that the exported model computes the same features."""

import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from mmengine.config import Config
from torch import Tensor

from mmebm.interchange.hf_models import HuggingFace, HuggingFaceItself
from mmebm.interchange.onnx_graph import Onnx
from mmebm.interchange.openmmlab import OpenMMLab
from mmebm.interchange.source import Source, from_bgr, read_source
from mmebm.interchange.timm_models import NativeTimm, Timm
from mmebm.interchange.torchvision_models import Torchvision
from mmebm.output_files import check_new


class Target(Protocol):
    """A format to which a backbone can be exported."""

    def write(self, source: Source, folder: Path) -> None:
        """Write the backbone into a folder."""

    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """Load the written files as a user does; the last features (N, L, D) of normalised images (N, C, H, W)."""


TARGETS: dict[str, Target] = {
    'timm': Timm(),
    'hf': HuggingFace(),
    'torchvision': Torchvision(),
    'mmpretrain': OpenMMLab('mmpretrain', is_dense=False),
    'mmseg': OpenMMLab('mmseg', is_dense=True),
    'mmdet': OpenMMLab('mmdet', is_dense=True),
    'onnx': Onnx(),
}
# A backbone from another library is exported to it by that library's own functions.
NATIVE: dict[tuple[str, str], Target] = {
    ('timm', 'TIMMBackbone'): NativeTimm(),
    ('hf', 'HuggingFaceBackbone'): HuggingFaceItself(),
}

# Largest absolute difference of features, in float32.
TOLERANCE = 1e-4

NUM_IMAGES = 2

# Beside the exported weights: what they were trained on and by, where the checkpoint says it.
PROVENANCE = 'provenance.json'


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        files: The written files.
        difference: The largest absolute difference of features.
        magnitude: The largest absolute feature.
        image_size: (height, width) in pixels of the compared images.
        left_out: Names of weights that were not exported: the last features do not depend on them.
        note: A note for users on the order of channels, also in the written Python file, if any; empty if none is
            needed.
    """

    files: list[Path]
    difference: float
    magnitude: float
    image_size: tuple[int, int]
    left_out: list[str]
    note: str


def export(
    checkpoint: str | Path,
    to: str,
    out: str | Path,
    config: Config | None = None,
    image_size: int | None = None,
    channels: Literal['as-loaded', 'bgr'] = 'as-loaded',
) -> Export:
    """Export the backbone of a pretraining checkpoint.

    The exported files are loaded as a user loads them, and run on the same random images as the backbone itself.

    Args:
        checkpoint: Path of a pretraining checkpoint.
        to: One of ``TARGETS``.
        out: A folder that does not exist or is empty.
        config: Config of the checkpoint's training; None: the one stored in the checkpoint.
        image_size: Image size in pixels to resize position embeddings for; None: as trained.
        channels: ``as-loaded``: the exported model takes channels in the order of training. ``bgr``: that was BGR, and
            the exported model takes RGB.

    Raises:
        FileExistsError: ``out`` is neither new nor empty.
        FileNotFoundError: There is no such checkpoint.
        ImportError: The target's package is not installed.
        UnsupportedError: The target has no such model, or its channels cannot be reversed.
        ValueError: The checkpoint does not fit its config, it was not trained on BGR as ``channels`` says, its
            features are not finite, or they differ by more than ``TOLERANCE``. Nothing is written then.
    """
    out = Path(out).resolve()
    check_new(out, '--out')
    source = read_source(checkpoint, config, image_size)
    source = from_bgr(source) if channels == 'bgr' else source
    target = NATIVE.get((to, source.kind), TARGETS[to])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        folder = Path(folder)
        target.write(source, folder)
        difference, magnitude = compare(source, target, folder)
        if not math.isfinite(magnitude):
            raise ValueError(
                f'{checkpoint} has features that are not finite: its training diverged, or its weights are damaged. '
                'Export an earlier checkpoint; nothing was written'
            )
        if not difference <= TOLERANCE:
            raise ValueError(
                f'The features of the exported {source.kind} differ by up to {difference:.1e}, more than '
                f'{TOLERANCE:.0e} (features of up to {magnitude:.1f}, images of {source.image_size[0]} x '
                f'{source.image_size[1]} pixels): {to} computes different features here, and nothing was written'
            )
        shutil.rmtree(folder / '__pycache__', ignore_errors=True)
        if source.provenance:
            (folder / PROVENANCE).write_text(json.dumps(source.provenance, indent=2) + '\n')
        for file in folder.glob('*.py'):  # which may contain the folder's path
            file.write_text(file.read_text().replace(str(folder), str(out)))
        copy_contents(folder, out)
    left_out = [] if isinstance(target, OpenMMLab) else [*source.left_out]
    return Export(sorted(out.iterdir()), difference, magnitude, source.image_size, left_out, source.note)


def copy_contents(folder: Path, out: Path) -> None:
    """Copy all files below a folder, with the permissions of new files: here, only their owner can read some."""
    out.mkdir(exist_ok=True)
    for path in sorted(folder.rglob('*')):
        target = out / path.relative_to(folder)
        if path.is_dir():
            target.mkdir()
        else:
            shutil.copyfile(path, target)


def compare(source: Source, target: Target, folder: Path) -> tuple[float, float]:
    """Largest absolute difference of features and largest absolute feature; ValueError if shapes differ."""
    images = torch.randn(NUM_IMAGES, source.in_channels, *source.image_size, generator=torch.Generator().manual_seed(0))
    ours, theirs = source.features(images), target.features(source, folder, images)
    if ours.shape != theirs.shape:
        raise ValueError(f'The exported model returns features {tuple(theirs.shape)} instead of {tuple(ours.shape)}')
    return (ours - theirs).abs().max().item(), ours.abs().max().item()
