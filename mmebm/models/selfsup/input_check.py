"""Checks on images as they come from the pipeline, before a data preprocessor normalises them."""

from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmebm.pixels import PEAK

DARK = 8  # images that have been normalised are below it
UNITS = (
    f'images must be in pixel units, 0 to {PEAK:g}: mmebm.LoadImage makes them of images of any depth, by '
    'value_range=(BLACK, WHITE) if their type does not say their range'
)


class InputCheck:
    """A forward pre-hook of a data preprocessor.

    Args:
        owner: The model's name.
        in_channels: Channels C that the backbone reads, if known.

    Raises:
        ValueError: (when called) The inputs are not one or several batches (N, C, H, W) for this preprocessor and this
            backbone; or, in the first batch of training or of evaluation, their values are not in pixel units.
    """

    def __init__(self, owner: str, in_channels: int | None) -> None:
        self.owner = owner
        self.in_channels = in_channels
        self.unseen = {True, False}  # training and evaluation, which may have pipelines of their own

    def __call__(self, preprocessor: nn.Module, args: tuple[Any, ...]) -> None:
        """Check the inputs of a batch, ``args[0]['inputs']``."""
        inputs = args[0].get('inputs') if args and isinstance(args[0], dict) else None
        if inputs is None:
            return
        training = len(args) > 1 and bool(args[1])
        for view in [inputs] if isinstance(inputs, Tensor) else inputs:
            self._check_layout(view)
            self._check_channels(preprocessor, view.shape[1])
            if training in self.unseen:
                self._check_values(view)
        self.unseen.discard(training)

    def _check_layout(self, view: Any) -> None:
        if isinstance(view, (list, tuple)) and isinstance(view[0], Tensor) and view[0].dim() == 4:
            raise ValueError(
                f'{self.owner}: there are views of views: CorruptedPair is within MultiView, and makes two views '
                'itself. Put it into the pipeline in the place of MultiView'
            )
        if not isinstance(view, Tensor) or view.dim() != 4:
            raise ValueError(
                f"{self.owner} needs batches (N, C, H, W): set collate_fn=dict(type='default_collate') in the data "
                'loader, and resize images to one size'
            )

    def _check_channels(self, preprocessor: nn.Module, channels: int) -> None:
        normalized = preprocessor.mean.numel() if hasattr(preprocessor, 'mean') else 1
        swaps = getattr(preprocessor, '_channel_conversion', False)
        if channels == (self.in_channels or channels) and normalized in (1, channels) and (not swaps or channels == 3):
            return
        reads = [f'the backbone {self.in_channels} (in_channels)'] if self.in_channels else []
        reads += [f'data_preprocessor.mean and .std are for {normalized}'] if normalized > 1 else []
        reads += ['data_preprocessor.to_rgb=True for 3'] if swaps else []
        raise ValueError(
            f'{self.owner}: the images have {channels} channels, but {", ".join(reads)}. Load other images '
            "(color_type='color' of mmebm.LoadImage gives 3 channels, 'grayscale' 1, 'unchanged' those of the file, "
            'alpha too), or set these keys to the number of channels, with one mean, one std and to_rgb=False'
        )

    def _check_values(self, images: Tensor) -> None:
        if images.dtype == torch.uint8 or not images.numel():
            return
        is_float, highest = images.is_floating_point(), images.float().max().item()
        # Interpolation of floating point overshoots.
        if highest > PEAK * (2 if is_float else 1):
            raise ValueError(f'{self.owner}: the first images have {images.dtype} values up to {highest:g}; {UNITS}')
        if is_float and 0 < highest <= DARK:
            MMLogger.get_current_instance().warning(
                f'{self.owner}: the first images have values of at most {highest:g}; {UNITS}'
            )


def check_units(owner: str, preprocessor: nn.Module) -> None:
    """Check that a data preprocessor normalises by values in pixel units.

    Raises:
        ValueError: They are in other units, 0 to 1 or those of more than 8 bits, or a deviation is not positive.
    """
    if not hasattr(preprocessor, 'mean'):
        return
    if not (preprocessor.std > 0).all():
        deviations = preprocessor.std.flatten().tolist()
        raise ValueError(f'{owner}: data_preprocessor.std must be positive in each channel, not {deviations}')
    mean, std = preprocessor.mean.max().item(), preprocessor.std.max().item()
    if mean > PEAK or (0 < mean <= 1 and std < 1):
        raise ValueError(
            f'{owner}: data_preprocessor.mean of up to {mean:g} and std of up to {std:g} are not in the units of '
            f'pixels, 0 to {PEAK:g}; {UNITS}. Multiply mean and std by {PEAK:g} and divide them by the value of white'
        )
