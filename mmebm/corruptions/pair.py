"""A training pair of any corruption."""

from collections.abc import Callable, Sequence

from mmcv.transforms import BaseTransform, Compose

from mmebm.registry import TRANSFORMS

from .functional import as_type_of, contiguous
from .transforms import Corruption


@TRANSFORMS.register_module()
class CorruptedPair(BaseTransform):
    """Replaces ``results['img']`` by ``[corrupted, clean]``, two views that ``PackInputs`` carries on.

    Args:
        corruption: Config of a transform, or of a list of them that make a chain. Any transform that changes
            ``results['img']`` and keeps its shape will do; mixtures are mmcv's ``RandomChoice``.

    Raises:
        KeyError: A transform is not registered; the message names ours.
        ValueError: The corruption changes the image's shape.
    """

    def __init__(self, corruption: dict | Callable | Sequence[dict | Callable]):
        steps = corruption if isinstance(corruption, (list, tuple)) else [corruption]
        try:
            self.corruption = Compose(steps)
        except KeyError as error:
            ours = [f'mmebm.{name}' for name, cls in TRANSFORMS.module_dict.items() if issubclass(cls, Corruption)]
            raise KeyError(f'CorruptedPair: unknown corruption; mmebm has {ours}. {error.args[0]}') from error

    def transform(self, results: dict) -> dict | None:
        """Make the pair; None if the corruption gave up on the image."""
        clean = contiguous(results['img'])
        corrupted = self.corruption({**results, 'img': clean.copy()})
        if corrupted is None:
            return None
        if corrupted['img'].shape != clean.shape:
            raise ValueError(
                f"CorruptedPair: the corruption changed the image's shape from {clean.shape} to "
                f'{corrupted["img"].shape}; it must keep it'
            )
        results['img'] = [as_type_of(clean, corrupted['img']), clean]
        results['corruption'] = corrupted.get('corruption', 'custom')
        return results
