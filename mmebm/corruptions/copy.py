"""Corrupted copies of images, from files."""

from pathlib import Path

from mmcv.transforms import BaseTransform

from mmebm.datasets.load_image import LoadImage
from mmebm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CorruptedCopy(BaseTransform):
    """Replaces an image by that of the same name in another folder, such as ``tools/make_corrupted.py`` writes.

    Crops and flips must not come between loading and this, or the copy is of another part of the image.

    Args:
        clean_root: The folder that images are loaded from.
        corrupted_root: The folder of their copies.
        **kwargs: The options of :class:`mmebm.LoadImage` for the copies.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: (when called) The image is from no file below ``clean_root``.
        BrokenImageError: (when called) Its copy is missing or cannot be read.
    """

    def __init__(self, clean_root: str, corrupted_root: str, **kwargs) -> None:
        self.roots = Path(clean_root), Path(corrupted_root)
        for name, root in zip(('clean_root', 'corrupted_root'), self.roots, strict=True):
            if not root.is_dir():
                raise FileNotFoundError(f'CorruptedCopy: {name}={str(root)!r} is no folder')
        self.load = LoadImage(**kwargs)

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']``, and name the corruption ``copy``."""
        clean_root, corrupted_root = self.roots
        path = Path(results.get('img_path') or '')
        if clean_root not in path.parents:
            raise ValueError(
                f'CorruptedCopy: the image {str(path)!r} is not below clean_root={str(clean_root)!r}; set that to the '
                "data set's folder"
            )
        copy = self.load(dict(img_path=str(corrupted_root / path.relative_to(clean_root))))
        return {**results, 'img': copy['img'], 'corruption': 'copy'}
