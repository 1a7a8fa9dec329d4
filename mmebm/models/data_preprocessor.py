"""Normalisation of images of any number of channels."""

from collections.abc import Sequence

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor as TheirPreprocessor

from mmebm.registry import MODELS


@MODELS.register_module()
class SelfSupDataPreprocessor(TheirPreprocessor):
    """mmpretrain's, which takes one or three values of mean and std, for any number of them.

    Args:
        mean: In pixel units, one for all channels or one for each; None: images are not normalised.
        std: Likewise.
        **kwargs: As mmpretrain's.

    Raises:
        ValueError: There is one of ``mean`` and ``std`` without the other, or they have different lengths.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs) -> None:
        if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std)):
            lengths = [None if values is None else len(values) for values in (mean, std)]
            raise ValueError(
                'data_preprocessor: mean and std must have the same number of values, one for all channels or one for '
                f'each; they have {lengths[0]} and {lengths[1]}'
            )
        if mean is None:
            super().__init__(**kwargs)
        else:
            super().__init__(mean=[0.0], std=[1.0], **kwargs)
            for name, values in dict(mean=mean, std=std).items():
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False)
