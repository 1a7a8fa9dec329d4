"""A folder of images in which a broken file causes a warning instead of ending the run."""

from collections.abc import Sequence

import torch
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset
from torch import Tensor

from mmebm.datasets.classes import number_classes
from mmebm.datasets.listing import EXTENSIONS, list_images
from mmebm.datasets.load_image import BrokenImageError
from mmebm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, at any depth, such as ImageNet's train folder.

    A file that :class:`LoadImage` finds broken is replaced by a random other image, logged once at level WARNING, and
    counted in :attr:`num_broken`; a training lists all at its end (:class:`mmebm.engine.BrokenImagesHook`). With
    ``test_mode=True`` it raises BrokenImageError instead.

    Args:
        data_root: The folder.
        data_prefix: A subfolder of ``data_root`` to restrict the search to, such as ``'train'``.
        with_label: Use the first level of subfolders as the classes.
        extensions: File extensions to include, or one of them; upper and lower case match each other.
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
        extensions: str | Sequence[str] = EXTENSIONS,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if not (data_root or data_prefix or kwargs.get('ann_file')):
            raise ValueError('ImageFolder: no folder given; set `data_root` to the folder of your images.')
        self._broken = torch.zeros(0, dtype=torch.bool)
        self.skipped: dict[str, list[str]] = {}
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            with_label=with_label,
            extensions=(extensions,) if isinstance(extensions, str) else extensions,  # not the letters of one
            lazy_init=lazy_init,
            **kwargs,
        )

    @property
    def num_broken(self) -> int:
        """The number of broken files found so far by this process and its data loading workers."""
        return int(self._broken.sum())

    @property
    def broken(self) -> Tensor:
        """Whether each file is known to be broken, (len,), by this process and its data loading workers."""
        return self._broken

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
        if self._broken[idx] and not self.test_mode:
            return None
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
        self.skipped = dict(listing.skipped)
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
        if self._broken.all():
            raise RuntimeError(
                f'All {len(self)} images in {self.img_prefix!r} are broken, the last one: {error}. The log names each; '
                'check the folder `data_root`.'
            )

    def _reset_broken(self) -> None:
        # One flag per file, not a counter: workers restart each epoch, and a file must not count twice. In shared
        # memory, so that the main process sees what its workers find.
        self._broken = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._broken.share_memory_()  # deep copies and unpickled tensors are not shared
