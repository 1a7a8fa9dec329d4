"""Loads images in pixel units, and rejects damaged files."""

import struct
from numbers import Real

import cv2
import numpy as np
import torch
from mmcv.image import io as mmcv_io
from mmcv.image.io import imread_flags, supported_backends
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from PIL import Image

from mmebm.datasets.decoding import ChannelsError, decode, find_damage, pixels_in_header, with_channels
from mmebm.error_text import printable
from mmebm.option_check import check_whole_numbers
from mmebm.pixels import ValueRange, range_of_type, to_pixel_units
from mmebm.registry import TRANSFORMS

# Raised by OpenCV, Pillow, libjpeg-turbo and tifffile on damaged data; wrong options raise other errors.
_DECODING_ERRORS = (
    *(cv2.error, OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, MemoryError),
    *(RuntimeError, ArithmeticError),  # of AVIF and BigTIFF
    Image.DecompressionBombError,
)

# Of an image by default; what Pillow refuses to decode, and 512 MiB in 8 bits.
MAX_PIXELS = 178_956_970

# How to set the range of values, for messages: a test reads other options than a training.
_OPTIONS = (
    '--cfg-options train_dataloader.dataset.pipeline.0.value_range={0} for training, '
    'test_dataloader.dataset.pipeline.0.value_range={0} for a test, and likewise val_dataloader'
)


class BrokenImageError(OSError):
    """An image file that cannot be read or decoded, or is truncated; the message names it."""


# By its second name, `dict(type='LoadImageFromFile', _scope_='mmebm')`, mmpretrain's tools find it in a config.
@TRANSFORMS.register_module(name=['LoadImage', 'LoadImageFromFile'])
class LoadImage(LoadImageFromFile):
    """Load an image in pixel units (0 to 255), and reject damaged files.

    OpenCV decodes a truncated JPEG to a half-grey picture without an error, so the end marker is checked first.

    With the default ``color_type='color'`` every file (16-bit, grey, palette, RGBA and CMYK too) becomes a uint8 array
    (H, W, 3) in BGR order, turned as its EXIF tag says. ``color_type='unchanged'`` keeps channels, alpha and depth: an
    image of 16 bits becomes float32, its 65535 becoming 255; the EXIF tag is read of TIFFs alone.
    Pillow does not turn images of 16 bits.

    A file that is in memory, as a member of an archive, comes as ``results['img_bytes']``; ``img_path`` then only names
    it. An image that is in ``results['img']`` already, where there is no ``img_path``, is treated as one from a file;
    if floating point, it is taken to be in pixel units.

    Args:
        to_float32: Convert the image to float32.
        color_type: The flag of :func:`mmcv.imfrombytes`.
        imdecode_backend: The decoder of :func:`mmcv.imfrombytes`.
        ignore_empty: Return None for a broken file instead of raising an error.
        value_range: The values of black and white in the files, lower first, such as (0, 4095) for 12-bit data in
            16-bit files, or (0, 1): they become 0 and 255 in float32, and values outside are clipped. Needed for
            floating point and signed integers; by default that of the data type.
        max_pixels: Width times height above which a file counts as broken and is not decoded: some kilobytes can hold
            an image that fills the memory.
        backend_args: The storage backend, as in :class:`mmcv.transforms.LoadImageFromFile`.

    Raises:
        ImportError: The decoder is not installed.
        ValueError: ``color_type`` or ``imdecode_backend`` is unknown, ``value_range`` is no range, or ``max_pixels`` is
            below 1. When called: the range of the values, or what their channels mean, is not known.
        BrokenImageError: (when called) The file is missing, empty, truncated, too large or cannot be decoded.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        ignore_empty: bool = False,
        value_range: ValueRange | None = None,
        max_pixels: int = MAX_PIXELS,
        *,
        backend_args: dict | None = None,
    ) -> None:
        if color_type not in imread_flags:
            raise ValueError(f'LoadImage: color_type={color_type!r} is unknown; choose from {list(imread_flags)}.')
        if imdecode_backend not in supported_backends:
            raise ValueError(
                f'LoadImage: imdecode_backend={imdecode_backend!r} is unknown; choose from {supported_backends}.'
            )
        if imdecode_backend == 'turbojpeg' and mmcv_io.TurboJPEG is None:
            raise ImportError("LoadImage: imdecode_backend='turbojpeg' needs PyTurboJPEG; install it, or use 'cv2'.")
        if imdecode_backend == 'tifffile' and mmcv_io.tifffile is None:
            raise ImportError("LoadImage: imdecode_backend='tifffile' needs tifffile: pip install tifffile")
        is_pair = isinstance(value_range, (list, tuple)) and len(value_range) == 2
        is_pair = is_pair and all(isinstance(value, Real) for value in value_range)
        if value_range is not None and not (is_pair and value_range[0] < value_range[1]):
            raise ValueError(f'LoadImage: value_range={value_range!r} must be two numbers, the lower one first.')
        check_whole_numbers('LoadImage', max_pixels=max_pixels)
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            ignore_empty=ignore_empty,
            backend_args=backend_args,
        )
        self.value_range = value_range
        self.max_pixels = max_pixels
        self._has_warned = torch.zeros(1, dtype=torch.bool).share_memory_()  # by any worker, of any epoch

    def transform(self, results: dict) -> dict | None:
        """Read ``results['img_path']``, or take ``results['img']``, into ``img``, ``img_shape`` and ``ori_shape``."""
        if 'img_path' in results:
            try:
                image = self._load(results['img_path'], results.pop('img_bytes', None))
            except BrokenImageError:
                if self.ignore_empty:
                    return None
                raise
        elif 'img' in results:
            image, source = with_channels(results['img'], self.color_type), "results['img']"
            if self.value_range:
                self._check_values(image, source)
            image = self._in_pixel_units(image, source)
        else:
            raise KeyError(f"LoadImage needs results['img_path'] or results['img']; there is only {sorted(results)}")
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str, content: bytes | None) -> NDArray:
        try:
            content = get(path, backend_args=self.backend_args) if content is None else content
        except OSError as error:
            raise BrokenImageError(f'{printable(path)}: cannot be read ({error.strerror or error})') from error
        return self.decode(content, printable(path))

    def decode(self, content: bytes, path: str) -> NDArray:
        """The image (H, W[, C]) of a file's bytes, in pixel units.

        Args:
            content: Of the file.
            path: What messages call it.

        Raises:
            BrokenImageError, ValueError: As for the class.
        """
        damage = find_damage(content)
        if damage:
            raise BrokenImageError(f'{path}: {damage}')
        width, height = pixels_in_header(content)
        if width * height > self.max_pixels:
            raise BrokenImageError(
                f'{path}: has {width} x {height} pixels, more than max_pixels={self.max_pixels} of LoadImage'
            )
        try:
            image = decode(content, self.color_type, self.imdecode_backend)
        except (ChannelsError, NotImplementedError) as error:
            raise ValueError(f'LoadImage: {path}: {error}') from error
        except _DECODING_ERRORS as error:
            raise BrokenImageError(f'{path}: cannot be decoded ({error})') from error
        if image is None or not image.size:
            raise BrokenImageError(f'{path}: cannot be decoded')
        self._check_values(image, path)
        return self._in_pixel_units(image, path)

    def _check_values(self, image: NDArray, path: str) -> None:
        limits = range_of_type(image.dtype)
        if limits and self.value_range and self.value_range[1] > limits[1]:
            raise ValueError(
                f'LoadImage: value_range={self.value_range} exceeds the {image.dtype} values of {path}, at most '
                f'{limits[1]:g}; correct it, or keep images of other depths apart. (Pillow reads colour images of 16 '
                "bits as 8 bits: imdecode_backend='cv2' does not.)"
            )
        if limits:
            return
        if not np.isfinite(image).all():
            raise BrokenImageError(f'{path}: has values that are not finite')
        if self.value_range is None:
            raise ValueError(
                f'LoadImage: {path} has {image.dtype} values, here from {image.min():g} to {image.max():g}, whose '
                'range is not known: set value_range=(BLACK, WHITE), those of your data, in LoadImage '
                f'({_OPTIONS.format("BLACK,WHITE")})'
            )

    def _in_pixel_units(self, image: NDArray, source: str) -> NDArray:
        if self.value_range is None and image.dtype == np.uint16:
            self._warn_of_low_values(image, source)
            if self.color_type != 'unchanged':
                return (image >> 8).astype(np.uint8)  # the high byte, as OpenCV
        return to_pixel_units(image, self.value_range)

    def _warn_of_low_values(self, image: NDArray, source: str) -> None:
        """Say once that 16-bit values do not reach a quarter of their range, as do those of 10, 12 or 14 bits."""
        highest = int(image.max(initial=0))
        if not 0 < highest < 2**14 or self._has_warned:
            return
        self._has_warned[:] = True
        white = 2 ** highest.bit_length() - 1
        left = 'little contrast' if self.color_type == 'unchanged' else f'{(highest >> 8) + 1} grey levels'
        MMLogger.get_current_instance().warning(
            f'LoadImage: {source} has 16-bit values of at most {highest} out of 65535, of which {left} will be left. '
            f'If your files hold {highest.bit_length()}-bit data, set value_range=(0, {white}) in LoadImage '
            f'({_OPTIONS.format(f"0,{white}")}). Said once; other files may be alike.'
        )

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._has_warned.share_memory_()  # deep copies and unpickled tensors are not shared
