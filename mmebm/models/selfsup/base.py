"""Base class of self-supervised models with a ``predict`` mode.

Shapes: N images; C channels of an image; H, W height and width; L patches (tokens) of an image; D width of features; K
restoration steps; M kept tokens; V visible, P position-dropped and R masked patches, V + P + R = L.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn


class BaseRestorer(BaseSelfSupervisor):
    """A self-supervised model that restores images, with a ``predict`` mode.

    Args:
        *args: As in mmpretrain's ``BaseSelfSupervisor``.
        data_preprocessor: Likewise; its type defaults to ``SelfSupDataPreprocessor``.
        **kwargs: As in mmpretrain's ``BaseSelfSupervisor``.

    Attributes:
        num_inputs: Number of image batches in the list that ``loss`` takes.
        differentiates_twice: Whether training differentiates through a gradient, which some engines do not support.
    """

    num_inputs: ClassVar[int]
    differentiates_twice: ClassVar[bool] = False

    def __init__(self, *args, data_preprocessor: dict | nn.Module | None = None, **kwargs):
        if not isinstance(data_preprocessor, nn.Module):
            # With its scope: mmpretrain's bare name is unknown under the default scopes of mmseg and mmdet.
            data_preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor') | dict(data_preprocessor or {})
        super().__init__(*args, data_preprocessor=data_preprocessor, **kwargs)
        self._is_first_batch = True  # on the host, so that only the first batch waits for the device

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[DataSample] | None = None,
        mode: Literal['loss', 'tensor', 'predict'] = 'tensor',
    ):
        """As in mmengine's models: ``loss`` for training, ``tensor`` for features, ``predict`` for data samples."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    @abstractmethod
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Restore normalised images (N, C, H, W) and compute their energies."""

    def to_pixels(self, images: Tensor) -> Tensor:
        """Undo the data preprocessor's normalisation of images (..., C, H, W); clips to 0 to 255."""
        if hasattr(self.data_preprocessor, 'mean'):
            images = images * self.data_preprocessor.std + self.data_preprocessor.mean
        return images.clamp(0, 255)


def fill(data_samples: list[DataSample] | None, fields: Mapping[str, Tensor]) -> list[DataSample]:
    """Set fields, tensors (N, ...), on N data samples, one row each; without samples, create them."""
    data_samples = data_samples or [DataSample() for _ in next(iter(fields.values()))]
    for i, sample in enumerate(data_samples):
        for name, values in fields.items():
            sample.set_field(values[i], name)
    return data_samples


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Set ``requires_grad=False`` on the named parameters.

    Raises:
        ValueError: A name is not a parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        if name not in parameters:
            raise ValueError(
                f'{type(model).__name__}: frozen names {name!r}, which is not one of the parameters {[*parameters]}'
            )
        parameters[name].requires_grad_(False)
