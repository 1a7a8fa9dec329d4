"""A folder of images in which a broken file causes a warning instead of ending the run."""

import struct
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
import torch
from mmcv.image.io import imread_flags, supported_backends
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import LocalBackend, get, get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset

from mmebm.datasets.classes import number_classes
from mmebm.datasets.listing import EXTENSIONS, list_images
from mmebm.registry import DATASETS, TRANSFORMS

# Raised by OpenCV, Pillow, libjpeg-turbo and tifffile on damaged data; wrong options raise other errors.
_DECODING_ERRORS = (cv2.error, OSError, SyntaxError, ValueError, EOFError, struct.error)


class BrokenImageError(OSError):
    """An image file that cannot be read or decoded, or is truncated; the message names it."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image, and reject damaged files.

    OpenCV decodes a truncated JPEG to a half-grey picture without an error, so the end marker is checked first.

    With the default ``color_type='color'`` every file (16-bit, grey, palette, RGBA and CMYK too) becomes a uint8 array
    (H, W, 3) in BGR order.

    Args:
        to_float32: Convert the image to float32.
        color_type: The flag of :func:`mmcv.imfrombytes`.
        imdecode_backend: The decoder of :func:`mmcv.imfrombytes`.
        ignore_empty: Return None for a broken file instead of raising an error.
        backend_args: The storage backend, as in :class:`mmcv.transforms.LoadImageFromFile`.

    Raises:
        ValueError: ``color_type`` or ``imdecode_backend`` is unknown.
        BrokenImageError: (when called) The file is missing, empty, truncated or cannot be decoded.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        ignore_empty: bool = False,
        *,
        backend_args: dict | None = None,
    ) -> None:
        if color_type not in imread_flags:
            raise ValueError(f'LoadImage: color_type={color_type!r} is unknown; choose from {list(imread_flags)}.')
        if imdecode_backend not in supported_backends:
            raise ValueError(
                f'LoadImage: imdecode_backend={imdecode_backend!r} is unknown; choose from {supported_backends}.'
            )
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            ignore_empty=ignore_empty,
            backend_args=backend_args,
        )

    def transform(self, results: dict) -> dict | None:
        """Read ``results['img_path']`` into ``img``, ``img_shape`` and ``ori_shape``."""
        try:
            image = self._load(results['img_path'])
        except BrokenImageError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str) -> np.ndarray:
        try:
            content = get(path, backend_args=self.backend_args)
        except OSError as error:
            raise BrokenImageError(f'{path}: cannot be read ({error.strerror or error})') from error
        damage = _find_damage(content)
        if damage:
            raise BrokenImageError(f'{path}: {damage}')
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except _DECODING_ERRORS as error:
            raise BrokenImageError(f'{path}: cannot be decoded ({error})') from error
        if image is None:
            raise BrokenImageError(f'{path}: cannot be decoded')
        return image


def _find_damage(content: bytes) -> str:
    """Return the damage that an image file's markers show, or an empty string."""
    if not content:
        return 'is empty'
    if content.startswith(b'\xff\xd8'):
        # Searching backwards ends at once in an intact file, and tolerates data that cameras append.
        start = _start_of_jpeg_scan(content)
        complete = start > 0 and content.rfind(b'\xff\xd9', start) > 0
        return '' if complete else 'is truncated (a JPEG without end marker)'
    if content.startswith(b'\x89PNG\r\n\x1a\n') and content.rfind(b'IEND') < 0:
        return 'is truncated (a PNG without IEND chunk)'
    return ''


def _start_of_jpeg_scan(content: bytes) -> int:
    """Return the offset of a JPEG's first scan, or -1.

    The segments before it are skipped, since an EXIF thumbnail there has its own end marker.
    """
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != 0xDA:
        if content[position + 1] == 0xFF:  # a fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return content.find(b'\xff\xda', position)


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, at any depth, such as ImageNet's train folder.

    A file that :class:`LoadImage` finds broken is replaced by a random other image, logged once at level WARNING, and
    counted in :attr:`num_broken`. With ``test_mode=True`` it raises BrokenImageError instead.

    Args:
        data_root: The folder.
        data_prefix: A subfolder of ``data_root`` to restrict the search to, such as ``'train'``.
        with_label: Use the first level of subfolders as the classes.
        extensions: File extensions to include, in lower case; upper case files match too.
        lazy_init: Whether to postpone listing the files to ``full_init``.
        **kwargs: The other options of :class:`mmpretrain.datasets.CustomDataset`, such as ``pipeline`` or ``ann_file``.

    Raises:
        ValueError: Neither ``data_root`` nor ``data_prefix`` nor ``ann_file`` is given.
        FileNotFoundError: The folder is missing or holds no image.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        with_label: bool = False,
        extensions: Sequence[str] = EXTENSIONS,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if not (data_root or data_prefix or kwargs.get('ann_file')):
            raise ValueError('ImageFolder: no folder given; set `data_root` to the folder of your images.')
        self._broken = torch.zeros(0, dtype=torch.bool)
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            with_label=with_label,
            extensions=extensions,
            lazy_init=lazy_init,
            **kwargs,
        )

    @property
    def num_broken(self) -> int:
        """The number of broken files found so far by this process and its data loading workers."""
        return int(self._broken.sum())

    def full_init(self) -> None:
        """List the files."""
        if not self._fully_initialized:
            super().full_init()
            self._reset_broken()

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep only these images."""
        super().get_subset_(indices)
        self._reset_broken()

    def get_subset(self, indices: Sequence[int] | int) -> 'ImageFolder':
        """Return a data set of only these images."""
        subset = super().get_subset(indices)
        subset._reset_broken()
        return subset

    def prepare_data(self, idx: int) -> dict | None:
        """Return image ``idx`` after the pipeline, or None if its file is broken."""
        try:
            return super().prepare_data(idx)
        except BrokenImageError as error:
            if self.test_mode:
                raise
            self._report(idx, error)
            return None

    def __getitem__(self, idx: int) -> dict:
        try:
            return super().__getitem__(idx)
        except Exception as error:
            if type(error) is not Exception:  # mmengine raises a plain one after `max_refetch` tries
                raise
            raise RuntimeError(
                f'No usable image in {self.img_prefix!r} after {self.max_refetch + 1} tries: {self.num_broken} of '
                f'{len(self)} files are known to be broken (the log names each), and another transform that returns '
                'None counts as a try too. Check the folder `data_root` and the pipeline.'
            ) from error

    def _find_samples(self) -> list:
        folder = self.img_prefix
        backend = get_file_backend(folder)
        if not isinstance(backend, LocalBackend):
            return super()._find_samples()
        name = type(self).__name__
        if not backend.isdir(folder):
            raise FileNotFoundError(f'{name}: {folder!r} is not a folder; correct `data_root` (or `data_prefix`).')
        listing = list_images(folder, self.extensions, in_classes=self.with_label)
        if not listing.images:
            where = 'the subfolders of (with_label=True) ' if self.with_label else ''
            skipped = f' Skipped: {listing.faults()}.' if listing.skipped else ''
            raise FileNotFoundError(
                f'{name}: no image in {where}{folder!r}, the folder that `data_root` names; files ending in '
                f'{", ".join(sorted(self.extensions))} are taken (option `extensions`). Found: {listing}.{skipped}'
            )
        listing.log(name)
        if not self.with_label:
            return listing.images
        self.folder_to_idx, samples = number_classes(listing, self.CLASSES, name)
        self._metainfo['classes'] = self.CLASSES or tuple(self.folder_to_idx)
        return samples

    def _report(self, idx: int, error: BrokenImageError) -> None:
        if self._broken[idx]:
            return
        self._broken[idx] = True
        MMLogger.get_current_instance().warning(f'Skipped a broken image ({self.num_broken} so far): {error}')

    def _reset_broken(self) -> None:
        # One flag per file, not a counter: workers restart each epoch, and a file must not count twice. In shared
        # memory, so that the main process sees what its workers find.
        self._broken = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._broken.share_memory_()  # deep copies and unpickled tensors are not shared
