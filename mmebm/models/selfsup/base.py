"""Base class of self-supervised models with a ``predict`` mode.

Shapes: N images; C channels of an image; H, W height and width; L patches (tokens) of an image; D width of features; K
restoration steps; M kept tokens; V visible, P position-dropped and R masked patches, V + P + R = L. In CIM, h and w are
rows and columns of tokens, M is masked tokens and K the vocabulary.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.model_building import type_name
from mmebm.models.channels import check_channels, given_channels
from mmebm.models.selfsup.input_check import InputCheck, check_units
from mmebm.pixels import PEAK


class BaseRestorer(BaseSelfSupervisor):
    """A self-supervised model that restores images, with a ``predict`` mode.

    Args:
        backbone: As in mmpretrain's ``BaseSelfSupervisor``.
        data_preprocessor: Likewise; its type defaults to ``mmebm.SelfSupDataPreprocessor``, which takes mmpretrain's
            place, as that is for one or three values of mean and standard deviation. Mean and standard deviation are
            in pixel units, 0 to 255.
        **kwargs: As in mmpretrain's ``BaseSelfSupervisor``.

    Raises:
        ValueError: Backbone, head and data preprocessor are for different numbers of channels, or the latter is not in
            pixel units. The images of every batch are checked likewise.

    Attributes:
        num_inputs: Number of image batches in the list that ``loss`` takes.
        differentiates_twice: Whether training differentiates through a gradient, which some engines do not support.
    """

    num_inputs: int
    differentiates_twice: ClassVar[bool] = False

    def __init__(self, backbone: dict | nn.Module, *, data_preprocessor: dict | nn.Module | None = None, **kwargs):
        given = given_channels(backbone)
        if not isinstance(data_preprocessor, nn.Module):
            config = dict(backbone=backbone, head=kwargs.get('head'))
            check_channels(config, data_preprocessor or {}, 'data_preprocessor', swaps=True)
            data_preprocessor = dict(data_preprocessor or {})
            if type_name(data_preprocessor) in ('', 'SelfSupDataPreprocessor'):
                data_preprocessor['type'] = 'mmebm.SelfSupDataPreprocessor'
        super().__init__(backbone, data_preprocessor=data_preprocessor, **kwargs)
        name = type(self).__name__
        check_units(name, self.data_preprocessor)
        self.data_preprocessor.register_forward_pre_hook(InputCheck(name, given[1] if given else None))
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
        """Restore normalised images (N, C, H, W), and compute what else the model says of them."""

    def to_pixels(self, images: Tensor) -> Tensor:
        """Undo the data preprocessor's normalisation of images (..., C, H, W); clips to pixel units."""
        if hasattr(self.data_preprocessor, 'mean'):
            images = images * self.data_preprocessor.std + self.data_preprocessor.mean
        return images.clamp(0, PEAK)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalise images (..., C, H, W) in pixel units as the data preprocessor does."""
        if hasattr(self.data_preprocessor, 'mean'):
            return (pixels - self.data_preprocessor.mean) / self.data_preprocessor.std
        return pixels


def fill(data_samples: list[DataSample] | None, fields: Mapping[str, Tensor]) -> list[DataSample]:
    """Set fields, tensors (N, ...), on N data samples, a copy of one row each; without samples, create them.

    A row itself would keep the memory of its whole batch for as long as the sample lives, and be pickled with it.
    """
    data_samples = data_samples or [DataSample() for _ in next(iter(fields.values()))]
    for i, sample in enumerate(data_samples):
        for name, values in fields.items():
            sample.set_field(values[i].clone(), name)
    return data_samples


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Set ``requires_grad=False`` on the named parameters.

    Raises:
        ValueError: A name is not a parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for name in [names] if isinstance(names, str) else names:
        if name not in parameters:
            raise ValueError(
                f'{type(model).__name__}: frozen names {name!r}, which is not one of the parameters {[*parameters]}'
            )
        parameters[name].requires_grad_(False)
