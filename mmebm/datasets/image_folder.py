"""A folder of images in which a broken file causes a warning instead of ending the run."""

from collections.abc import Sequence

from mmengine.fileio import LocalBackend, get_file_backend
from mmpretrain.datasets import CustomDataset

from mmebm.datasets.classes import number_classes
from mmebm.datasets.listing import EXTENSIONS, list_images
from mmebm.datasets.skipping import SkipsBrokenImages
from mmebm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(SkipsBrokenImages, CustomDataset):
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
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            with_label=with_label,
            extensions=(extensions,) if isinstance(extensions, str) else extensions,  # not the letters of one
            lazy_init=lazy_init,
            **kwargs,
        )

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
            if listing.left_out.keys() & {'.arrow', '.parquet'}:
                skipped += ' Arrow and Parquet files are read by type=mmebm.HFImages.'
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
