"""Writes images, and what the generator of ``CIM`` makes of them, as a pair of folders."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.models.selfsup import BaseSelfSupervisor
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from mmebm.models.selfsup.cim import CIM, Target
from mmebm.output_files import check_new
from mmebm.visualization.figures import to_picture


@torch.no_grad()
def write_corrupted(
    model: BaseSelfSupervisor,
    dataset: Dataset,
    out: Path,
    target: Target = 'clean',
    seed: int = 0,
    batch_size: int = 100,
) -> int:
    """Write ``clean/`` and ``corrupted/``, whose files have the same names; PNG, in pixel units.

    Args:
        model: A trained ``CIM``.
        dataset: Of images of the model's size, packed.
        out: The folder, new or empty.
        target: What is in ``clean/``: the images, or what the tokenizer ``decoded`` of their own tokens, so that the
            pair differs in the replaced tokens alone.
        seed: Of masks and tokens.
        batch_size: Images at once.

    Returns:
        The number of images.

    Raises:
        FileExistsError: The folder is in use.
        ValueError: The model is no ``CIM``, an image is of another size, or the target does not fit its ``painting``.
    """
    if not isinstance(model, CIM):
        raise ValueError(f'the config is of {type(model).__name__}; corrupted copies are made by a CIM')
    check_new(out)
    loader = Runner.build_dataloader(
        dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type=collated, size=model.image_size),
            dataset=dataset,
        )
    )
    model.eval()
    is_rgb = model.data_preprocessor._channel_conversion  # of images that were loaded as BGR
    rng = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    number = 0
    for batch in track(loader, description='corrupting'):
        data = model.data_preprocessor(batch, False)
        view = model.pair(data['inputs'], target, rng)
        for image, corrupted, sample in zip(view.clean, view.corrupted, data['data_samples'], strict=True):
            name = name_of(sample.get('img_path'), getattr(dataset, 'img_prefix', ''), number)
            write(out / 'clean' / name, image, is_rgb)
            write(out / 'corrupted' / name, corrupted, is_rgb)
            number += 1
    return number


def collated(samples: Sequence[dict], size: tuple[int, int]) -> dict:
    """A batch of samples whose images, (C, H, W), are of one size.

    Args:
        samples: Packed.
        size: Height and width that they must have, in pixels.

    Raises:
        ValueError: One is of another size; the message names its file.
    """
    for sample in samples:
        image, name = sample['inputs'], sample['data_samples'].get('img_path', 'an image')
        if isinstance(image, Tensor) and tuple(image.shape[-2:]) != size:
            raise ValueError(
                f'{name} has {image.shape[-2]} x {image.shape[-1]} pixels behind the pipeline, and the model reads '
                f'{size[0]} x {size[1]}: let the pipeline resize or crop to that'
            )
    return default_collate(samples)


def name_of(path: str | None, root: str, number: int) -> str:
    """Of a file's copies: its own below the data set's folder, with ``.png`` behind; numbered if it is not below it."""
    if path is None:
        return f'{number:06d}.png'
    file = Path(path)
    is_below = root and file.is_relative_to(root) and '..' not in file.relative_to(root).parts
    return f'{file.relative_to(root)}.png' if is_below else f'{number:06d}_{file.name}.png'


def write(path: Path, image: Tensor, is_rgb: bool) -> None:
    """Write an image (3, H, W) in pixel units, RGB or BGR.

    Raises:
        OSError: It could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = to_picture(image)
    if not cv2.imwrite(str(path), picture[..., ::-1] if is_rgb else picture):
        raise OSError(f'{path} could not be written')
