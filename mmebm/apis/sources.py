"""Images as users have them, one after the other: paths, folders, arrays, PIL images and tensors."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from mmebm.datasets.listing import EXTENSIONS, list_images
from mmebm.datasets.load_image import BrokenImageError, LoadImage
from mmebm.model_building import type_name

# Files are read by threads: decoders let others run. More would not make one model faster.
READERS = min(8, os.cpu_count() or 1)

# The last steps of a pipeline, which a Restorer does itself.
OWN_STEPS = ('LoadImage', 'LoadImageFromFile', 'CorruptedPair', 'PackInputs')


class Item(NamedTuple):
    """One input: a name, and a path or an image."""

    name: str
    image: Any


def expand(images: Any) -> tuple[Iterable[Item], int | None]:
    """The inputs one by one, and how many there are; None if that is not known before.

    Args:
        images: A path of a file or a folder, of any depth; an array (H, W), (H, W, C) or (N, H, W, C), BGR as from
            OpenCV; a PIL image; a tensor (C, H, W) or (N, C, H, W), RGB; or an iterable of these. Values are in pixel
            units, 0 to 255, or those of uint16. Of four channels of a tensor, the last is alpha, unless the model reads
            images ``unchanged``.

    Raises:
        FileNotFoundError: There is no such file, or the folder holds no image.
        TypeError: It is none of these.
    """
    if isinstance(images, (str, Path)):
        files = _files(images)
        return (Item(file, file) for file in files), len(files)
    batch = _as_batch(images)
    if batch is not None:
        return (Item(f'image {i}', image) for i, image in enumerate(batch)), len(batch)
    if not isinstance(images, Iterable):
        raise TypeError(
            f'images must be a path, a folder, an array, a PIL image, a tensor, or a sequence of these, not '
            f'{type(images).__name__}'
        )
    if not isinstance(images, Sequence):
        return _each(images), None
    folders = any(isinstance(image, (str, Path)) and Path(image).is_dir() for image in images)
    single = not folders and all(_as_batch(image) is None or len(_as_batch(image)) == 1 for image in images)
    return _each(images), len(images) if single else None


def _each(images: Iterable) -> Iterator[Item]:
    for i, image in enumerate(images):
        if isinstance(image, (str, Path)) and not Path(image).is_dir():
            yield Item(str(image), str(image))  # if it is missing, it is skipped and named as a broken one
            continue
        items, _ = expand(image)
        many = _as_batch(image) is not None and len(_as_batch(image)) > 1
        for j, item in enumerate(items):
            is_file = isinstance(item.image, str)
            yield item if is_file else Item(f'image {i}, {j}' if many else f'image {i}', item.image)


def _files(path: str | Path) -> list[str]:
    if Path(path).is_file():
        return [str(path)]
    if not Path(path).is_dir():
        raise FileNotFoundError(f'There is no file or folder "{path}"')
    listing = list_images(str(path))
    listing.log('Restorer')
    if not listing.images:
        raise FileNotFoundError(
            f'There is no image in the folder "{path}"; files ending in {", ".join(sorted(EXTENSIONS))} are taken. '
            f'Found: {listing}'
        )
    return [str(Path(path, name)) for name in listing.images]


def _as_batch(images: Any) -> Any:
    """Images of an array, a tensor or PIL as a sequence of them; None if they are something else."""
    if isinstance(images, Image.Image):
        return [images]
    if not isinstance(images, (np.ndarray, Tensor)):
        return None
    if images.ndim == 4:
        return images
    if images.ndim == 3 or (images.ndim == 2 and isinstance(images, np.ndarray)):
        return images[None]
    layout = '(H, W), (H, W, C) or (N, H, W, C)' if isinstance(images, np.ndarray) else '(C, H, W) or (N, C, H, W)'
    raise TypeError(f'an image of shape {tuple(images.shape)}: expected {layout}')


class Preparation:
    """Makes of an input what the model was trained on: an array (H, W, C) in pixel units.

    Args:
        pipeline: The steps of the config's test pipeline. Its loader reads files; steps that corrupt or pack are left
            out.
        size: Height and width that the model needs, if the pipeline does not resize; None for any size.
        scope: In which the steps' types are meant.
        color_type: Of ``LoadImage``, if the pipeline does not load.
    """

    def __init__(self, pipeline: Sequence[dict], size: tuple[int, int] | None, scope: str, color_type: str) -> None:
        loaders = [step for step in pipeline if type_name(step) in OWN_STEPS[:2]]
        options = {
            key: value for key, value in (loaders[0] if loaders else {}).items() if key not in ('type', '_scope_')
        }
        self.loader = LoadImage(**(options if loaders else dict(color_type=color_type)) | dict(ignore_empty=False))
        steps = [step for step in pipeline if type_name(step) not in OWN_STEPS]
        if size and not any('Resize' in type_name(step) or 'Crop' in type_name(step) for step in steps):
            steps = [*steps, dict(type='mmpretrain.Resize', scale=size[::-1])]
        with DefaultScope.overwrite_default_scope(scope):
            self.steps = [TRANSFORMS.build(step) for step in steps]

    def __call__(self, item: Item) -> NDArray:
        """Load and transform.

        Raises:
            BrokenImageError: The file is missing or damaged.
            ValueError: The values or channels are not those of an image.
        """
        if isinstance(item.image, str):
            source = dict(img_path=item.image)
        else:
            loader = self.loader
            image = as_array(item, loader.color_type != 'unchanged', loader.value_range is not None)
            source = dict(img=image)
        results = self.loader.transform(source)
        for step in self.steps:
            results = step(results)
        image = results['img']
        return image[..., None] if image.ndim == 2 else image


def as_array(item: Item, has_alpha: bool, has_range: bool) -> NDArray:
    """An image as an array (H, W[, C]), BGR, in this machine's byte order.

    Args:
        item: The image.
        has_alpha: Whether the last of four channels of a tensor is alpha, behind red, green and blue.
        has_range: Whether the values of black and white are known; else they must be those of uint8 or uint16, or in
            pixel units.

    Raises:
        BrokenImageError: It has values that are not finite.
        ValueError: Its range is not known, and its values seem to be in 0 to 1, or are other integers out of 0 to 255.
    """
    image = item.image
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I;16'):  # of either byte order
            image = np.asarray(image).astype(np.uint16)
        elif image.mode not in ('L', 'I', 'F', 'RGB'):
            image = image.convert('RGB')
        image = np.asarray(image)
        image = image[..., ::-1] if image.ndim == 3 else image
    elif isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy().transpose(1, 2, 0)
        if image.shape[-1] == 3 or (image.shape[-1] == 4 and has_alpha):
            image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
    image = image.astype(image.dtype.newbyteorder('='), copy=False)
    if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
        raise BrokenImageError(f'{item.name}: has values that are not finite')
    if has_range:
        return np.ascontiguousarray(image)
    image = _of_known_type(image, item.name)
    if np.issubdtype(image.dtype, np.floating) and 0 < image.max(initial=0) <= 1:
        raise ValueError(
            f'{item.name}: floating-point values of at most {image.max():g}; images are in pixel units, 0 to 255: '
            'multiply by 255'
        )
    return np.ascontiguousarray(image)


def _of_known_type(image: NDArray, name: str) -> NDArray:
    """An image in a type that OpenCV takes, and whose range of values is known."""
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * 255
    if image.dtype == np.float16:
        return image.astype(np.float32)
    if np.issubdtype(image.dtype, np.integer) and image.dtype not in (np.uint8, np.uint16):
        low, high = image.min(initial=0), image.max(initial=0)
        if low < 0 or high > 255:
            raise ValueError(
                f'{name}: values of {low} to {high} of type {image.dtype}, whose black and white are not known; give '
                'uint8, uint16, or 0 to 255'
            )
        return image.astype(np.uint8)
    return image


class Prepared(NamedTuple):
    """An image ready for the model, or what is wrong with its file."""

    name: str
    index: int
    image: NDArray | None
    fault: str


def prepared(items: Iterable[Item], prepare: Callable[[Item], NDArray], ahead: int) -> Iterator[Prepared]:
    """Prepare items in their order, a few in parallel; at most ``ahead`` are held at a time.

    Args:
        items: May be endless.
        prepare: Called by threads.
        ahead: How many are prepared before they are asked for.
    """

    def attempt(numbered: tuple[int, Item]) -> Prepared:
        index, item = numbered
        try:
            return Prepared(item.name, index, prepare(item), '')
        except BrokenImageError as error:
            return Prepared(item.name, index, None, str(error))

    numbered = iter(enumerate(items))
    with ThreadPoolExecutor(READERS) as pool:
        waiting: list[Future] = [pool.submit(attempt, one) for one in islice(numbered, ahead)]
        try:
            while waiting:
                first = waiting.pop(0)
                waiting += [pool.submit(attempt, one) for one in islice(numbered, 1)]
                yield first.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
