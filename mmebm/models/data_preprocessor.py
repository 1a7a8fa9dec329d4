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
        ValueError: There is one of ``mean`` and ``std`` without the other, or they are not lists of one length.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs) -> None:
        are_given = [hasattr(values, '__len__') for values in (mean, std)]
        if not (mean is None and std is None) and not (all(are_given) and len(mean) == len(std)):
            raise ValueError(
                'data_preprocessor: mean and std must be lists of the same number of values, one for all channels or '
                f'one for each, not mean={mean} and std={std}'
            )
        if mean is None:
            super().__init__(**kwargs)
        else:
            super().__init__(mean=[0.0], std=[1.0], **kwargs)
            for name, values in dict(mean=mean, std=std).items():
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False)
