"""Checks that a model's config is for images of one number of channels throughout."""

from collections.abc import Mapping
from typing import Any

from mmebm.model_building import type_name

# Heads that reconstruct pixels, and so must know how many channels there are.
PIXEL_HEADS = ('PatchEnergyHead', 'ResPixHead', 'ResidualEnergyHead')


def given_channels(backbone: Any) -> tuple[str, int] | None:
    """Key and value of a backbone's config that set the channels of its images; None if it is left at its default."""
    if not isinstance(backbone, Mapping):
        return None
    if isinstance(backbone.get('config'), Mapping) and 'num_channels' in backbone['config']:
        return 'model.backbone.config.num_channels', backbone['config']['num_channels']  # HuggingFaceBackbone
    channels = backbone.get('in_channels')
    return ('model.backbone.in_channels', channels) if isinstance(channels, int) else None


def check_channels(model: Mapping[str, Any], preprocessor: Mapping[str, Any], place: str, swaps: bool) -> None:
    """Check that normalisation and head are for as many channels as the backbone's config says.

    Args:
        model: The model's config.
        preprocessor: That of its data preprocessor.
        place: The key of the data preprocessor.
        swaps: Whether ``to_rgb=True`` reorders channels regardless of their number, as in self-supervised models.

    Raises:
        ValueError: They are not; names the keys and what to set.
    """
    given = given_channels(model.get('backbone'))
    if given is None:
        return
    key, channels = given
    head = model.get('head')
    faults, remedies = [], []
    lengths = {
        name: len(preprocessor[name]) for name in ('mean', 'std') if isinstance(preprocessor.get(name), (list, tuple))
    }
    conversions = [name for name in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr') if swaps and preprocessor.get(name)]
    if any(length not in (1, channels) for length in lengths.values()):
        if len(set(lengths.values())) == 1:
            faults.append(f'{" and ".join(f"{place}.{name}" for name in lengths)} have {max(lengths.values())} values')
        else:
            faults += [f'{place}.{name} has {length} values' for name, length in lengths.items()]
        remedies += [f'{place}.mean=[M]', f'{place}.std=[S] (of your data, one for all channels or one for each)']
    if conversions and channels != 3:
        faults.append(f'{place}.{conversions[0]}=True reorders three channels')
        remedies.append(f'{place}.{conversions[0]}=False')
    if type_name(head) in PIXEL_HEADS and head.get('image_channels', 3) != channels:
        faults.append(f'model.head.image_channels is {head.get("image_channels", 3)}')
        remedies.append(f'model.head.image_channels={channels}')
    if faults:
        color_type = {1: "'grayscale'", 3: "'color'"}.get(channels, "'unchanged'")
        raise ValueError(
            f'{key} is {channels}, but {"; ".join(faults)}. Set {", ".join(remedies)}; mmebm.LoadImage loads images of '
            f'{channels} channel{"s" * (channels > 1)} with color_type={color_type}'
        )
