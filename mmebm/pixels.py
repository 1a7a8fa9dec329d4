"""Pixel units: in pipelines and in predictions images have values of 0 to 255, whatever the depth of their files."""

import numpy as np
from numpy.typing import NDArray

PEAK = 255.0

# The fields of predictions that are images, as they are shown from left to right. The last three are CIM's.
PICTURES = ('clean', 'corrupted', 'restored', 'masked', 'replaced_map', 'detected_map')

ValueRange = tuple[float, float]


def range_of_type(dtype: np.dtype) -> ValueRange | None:
    """The values that black and white have in arrays of a data type; None if it does not say so."""
    if dtype == np.bool_:
        return 0.0, 1.0
    return (0.0, float(np.iinfo(dtype).max)) if np.issubdtype(dtype, np.unsignedinteger) else None


def to_pixel_units(img: NDArray, value_range: ValueRange | None = None) -> NDArray:
    """An image in pixel units.

    Args:
        img: An array of any shape.
        value_range: The values that become 0 and 255; those outside are clipped. None: those of the array's type;
            uint8, floating point and signed integers are returned as they are.

    Returns:
        The same array if it is in pixel units already, else float32, which keeps all of 16 bits.
    """
    low, high = value_range or range_of_type(img.dtype) or (0.0, PEAK)
    if value_range is None and (low, high) == (0.0, PEAK):
        return img
    return np.clip((img.astype(np.float32) - np.float32(low)) * np.float32(PEAK / (high - low)), 0, PEAK)


def from_pixel_units(pixels: NDArray, dtype: np.dtype) -> NDArray:
    """An image in pixel units, floating point, in those that arrays of a data type have; neither rounded nor cast."""
    low, high = range_of_type(dtype) or (0.0, PEAK)
    return low + pixels * np.float32((high - low) / PEAK)
