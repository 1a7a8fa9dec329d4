"""What of a checkpoint's weights does not fit a model."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from mmebm.error_text import first_few

# Buffers that a model computes itself.
COMPUTED = re.compile(r'.*(num_batches_tracked|relative_position_index|relative_coords_table)')

# A line of torch's error.
SIZE_MISMATCH = re.compile(r'size mismatch for (\S+): .*?Size\(\[(.*?)\]\).*?Size\(\[(.*?)\]\)')


class Misfit(NamedTuple):
    """Weights, by name, that a model and a checkpoint do not share.

    Attributes:
        missing: Only in the model.
        unexpected: Only in the checkpoint.
        reshaped: In both, with the two shapes.
    """

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, str]

    def within(self, prefix: str) -> 'Misfit':
        """Those whose names start with a prefix."""
        return self._chosen(lambda key: key.startswith(prefix))

    def without(self, pattern: re.Pattern) -> 'Misfit':
        """Those whose whole names do not match a pattern."""
        return self._chosen(lambda key: not pattern.fullmatch(key))

    def __str__(self) -> str:
        problems = {'missing': self.missing, 'unexpected': self.unexpected}
        problems['of another shape'] = [f'{key} {shapes}' for key, shapes in self.reshaped.items()]
        return '; '.join(f'{problem}: {first_few(keys)}' for problem, keys in problems.items() if keys)

    def _chosen(self, is_chosen: Callable[[str], bool]) -> 'Misfit':
        reshaped = {key: shapes for key, shapes in self.reshaped.items() if is_chosen(key)}
        return Misfit([*filter(is_chosen, self.missing)], [*filter(is_chosen, self.unexpected)], reshaped)


def load(module: nn.Module, state: Mapping[str, Tensor], source: str) -> Misfit:
    """Load what fits into a module, as mmengine does, and return what does not.

    Modules rename and resize weights themselves, such as position embeddings; what they have mended fits.

    Args:
        module: As it is built, or with test-time augmentation.
        state: The weights, by the module's names.
        source: Origin of the weights, for the error.

    Raises:
        ValueError: The module fails to rename or resize them.
    """
    module = module.module if isinstance(module, BaseTTAModel) else module
    found: list[Any] = []
    hook = module.register_load_state_dict_post_hook(lambda _, keys: found.append(keys))
    reshaped = {}
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, AssertionError, LookupError) as error:  # by the first, torch lists other shapes
        for key, theirs, ours in SIZE_MISMATCH.findall(str(error)):
            reshaped[key] = f'({theirs}), not ({ours})'
        if not reshaped:
            reason = f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
            raise ValueError(
                f'{source}: {type(module).__name__} fails to fit the weights to its own size ({reason}); give the size '
                'that they were trained with'
            ) from error
    finally:
        hook.remove()
    missing, unexpected = found[-1]
    return Misfit([*missing], [*unexpected], reshaped)
