"""Decodes image files at their own depth, and finds damage that decoders pass over."""

import io
import re
import struct
import threading
from collections.abc import Callable
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.image.io import imread_flags
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Modes of Pillow whose conversion to colour saturates at 255, and those whose arrays are not colours.
_DEEP_MODES = ('F', 'I', 'I;16', 'I;16B', 'I;16L')
_CODED_MODES = ('CMYK', 'P', 'PA')

# Tags of TIFF.
IMAGE_WIDTH, IMAGE_LENGTH, SAMPLES_PER_PIXEL = 256, 257, 277

# Bytes of a header in which sides are looked for, and a side that none of them says: the file counts as too large.
HEADER, UNKNOWN = 1 << 16, 1 << 31

ORIENTATION = 0x0112  # of EXIF

# Formats that OpenCV decodes and Pillow may not know, by their first bytes: PAM, PFM and Radiance HDR; and how their
# headers say the sides. Of several places the largest counts, so that a comment cannot hide one.
_OTHER_HEADERS = {
    b'P7': (rb'WIDTH\s+(\d{1,9})', rb'HEIGHT\s+(\d{1,9})'),
    b'PF': (rb'PF\s+(\d{1,9})', rb'PF\s+\d+\s+(\d{1,9})'),
    b'Pf': (rb'Pf\s+(\d{1,9})', rb'Pf\s+\d+\s+(\d{1,9})'),
    b'#?': (rb'[-+]X\s+(\d{1,9})', rb'[-+]Y\s+(\d{1,9})'),
}

_limit_of_pillow = threading.Lock()


def decode(content: bytes, color_type: str, backend: str) -> NDArray | None:
    """An image (H, W[, C]) with the data type of its file, its colours in the order blue, green, red.

    Args:
        content: Of the file.
        color_type: The flag of :func:`mmcv.imfrombytes`, which here sets the channels but not the data type.
        backend: The decoder of :func:`mmcv.imfrombytes`.

    Returns:
        The image, or None if OpenCV cannot decode it; other decoders raise errors of their own.

    Raises:
        NotImplementedError: ``color_type='unchanged'`` would give a palette's indices, or inks, by Pillow.
        ChannelsError: The file has other channels than ``color_type`` can be made of, or than the decoder knows.
    """
    if backend == 'tifffile' and is_tiff(content):
        return with_channels(read_tiff(content), color_type)
    if backend == 'cv2' and _turns_by_pillow_alone(content, color_type):
        backend = 'pillow'
    if backend == 'cv2':
        check_channels_of_tiff(content)
        flag: str | int = imread_flags[color_type]
        if color_type != 'unchanged':
            # OpenCV does not convert the channels of 32-bit TIFFs, whose mode Pillow knows only if there is one.
            is_tiff_of_32_bits = content.startswith((b'II', b'MM')) and _pillow_mode(content) in ('F', 'I', '')
            flag = 'unchanged' if is_tiff_of_32_bits else flag | cv2.IMREAD_ANYDEPTH
    elif backend == 'pillow':
        mode = _pillow_mode(content)
        if color_type == 'unchanged' and mode in _CODED_MODES:
            raise NotImplementedError(
                f"an image of Pillow's mode {mode} has no colours with color_type='unchanged' and "
                "imdecode_backend='pillow'; use imdecode_backend='cv2', or color_type='color'"
            )
        flag = 'unchanged' if mode in _DEEP_MODES else color_type
    else:
        flag = color_type
    image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    return None if image is None else with_channels(image, color_type)


def _turns_by_pillow_alone(content: bytes, color_type: str) -> bool:
    """Whether a file has an EXIF tag by which it is to be turned, in a format of which OpenCV does not follow it."""
    is_webp = content[:4] == b'RIFF' and content[8:12] == b'WEBP'
    is_avif = content[4:8] == b'ftyp' and content[8:12] in (b'avif', b'avis')
    if not (is_webp or is_avif) or color_type not in ('color', 'grayscale'):
        return False
    return (_from_header(content, lambda image: image.getexif().get(ORIENTATION)) or 1) != 1


class ChannelsError(ValueError):
    """An image whose channels cannot be made what ``color_type`` asks for."""


def with_channels(image: NDArray, color_type: str) -> NDArray:
    """The image with the channels of a ``color_type``: (H, W, 3) for colour, (H, W) for grey, else as it is.

    Raises:
        ChannelsError: It has neither one nor three nor, with an alpha channel, four channels.
    """
    image = image.astype(image.dtype.newbyteorder('='), copy=False)  # OpenCV would take the bytes as this machine's
    channels = 1 if image.ndim == 2 else image.shape[-1]
    wanted = 1 if color_type.startswith('grayscale') else 3
    if color_type == 'unchanged' or (image.ndim, channels) == ((2, 1) if wanted == 1 else (3, 3)):
        return image
    if image.ndim > 3 or channels not in (1, 3, 4):
        raise ChannelsError(
            f'an image of shape {image.shape} cannot be read with color_type={color_type!r}, which takes one, three or '
            "four channels; use color_type='unchanged'"
        )
    if image.dtype == np.float64:  # which OpenCV does not convert
        image = image.astype(np.float32)
    if channels == 1:
        gray = image.reshape(image.shape[:2])
        return gray if wanted == 1 else np.repeat(gray[..., None], 3, axis=2)
    color = np.ascontiguousarray(image[..., :3])
    return color if wanted == 3 else cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)


def read_tiff(content: bytes) -> NDArray:
    """A TIFF's image (H, W[, C]); channels may be interleaved, planes, or pages, where the shortest axis is theirs.

    Raises:
        ChannelsError: Its values are those of a palette, of inks, of CIELAB, or 0 is white.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        meaning = file.series[0].keyframe.photometric.name
        if meaning in ('PALETTE', 'SEPARATED', 'CIELAB', 'MINISWHITE'):
            raise ChannelsError(f"tifffile does not turn {meaning} into grey or colours; use imdecode_backend='cv2'")
        image, axes = file.series[0].asarray(), file.series[0].axes
    if image.ndim == 3:
        image = np.moveaxis(image, axes.index('S') if 'S' in axes else int(np.argmin(image.shape)), 2)
        if image.shape[2] in (3, 4):
            image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)  # from red, green, blue
    return image


def check_channels_of_tiff(content: bytes) -> None:
    """Check that OpenCV decodes all channels of a file, if it is a TIFF.

    Raises:
        ChannelsError: It has more than four.
    """
    channels = tiff_tags(content).get(SAMPLES_PER_PIXEL, 1) if is_tiff(content) else 1
    if channels > 4:
        raise ChannelsError(
            f"a TIFF of {channels} channels, which OpenCV does not decode; use imdecode_backend='tifffile' and "
            "color_type='unchanged'"
        )


def is_tiff(content: bytes) -> bool:
    """Whether a file begins as a TIFF, of either byte order."""
    return content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


def tiff_tags(content: bytes) -> dict[int, Any]:
    """The tags of a TIFF's first page, by number; empty if they are damaged."""
    try:
        header = content[:16] if 43 in content[2:4] else content[:8]  # 43: a BigTIFF
        tags, file = ImageFileDirectory_v2(header), io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error):
        return {}


def pixels_in_header(content: bytes) -> tuple[int, int]:
    """Width and height in pixels by a file's header; (0, 0) if neither Pillow nor OpenCV knows the format."""
    if is_tiff(content):  # also of channels that Pillow does not know
        tags = tiff_tags(content)
        sides = tags.get(IMAGE_WIDTH, 0), tags.get(IMAGE_LENGTH, 0)
        return sides if all(isinstance(side, int) for side in sides) else (UNKNOWN, UNKNOWN)
    if sides := _OTHER_HEADERS.get(content[:2]):
        found = [[int(value) for value in re.findall(side, content[:HEADER])] for side in sides]
        return max(found[0], default=UNKNOWN), max(found[1], default=UNKNOWN)
    return _from_header(content, lambda image: image.size) or (0, 0)


def _pillow_mode(content: bytes) -> str:
    """The mode that Pillow reads from a file's header; empty if it knows none."""
    return _from_header(content, lambda image: image.mode) or ''


def _from_header(content: bytes, read: Callable[[Image.Image], Any]) -> Any:
    """What ``read`` finds in an image whose header alone is read; None if Pillow does not know the format."""
    with _limit_of_pillow:  # threads read files, too
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # Pillow would warn of large images, though nothing is decoded
        try:
            with Image.open(io.BytesIO(content)) as image:
                return read(image)
        except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, struct.error):
            return None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def find_damage(content: bytes) -> str:
    """Return the damage that an image file's markers show, or an empty string."""
    if not content:
        return 'is empty'
    if content.startswith(b'\xff\xd8'):
        # Searching backwards ends at once in an intact file, and tolerates data that cameras append.
        start = _start_of_jpeg_scan(content)
        complete = start > 0 and content.rfind(b'\xff\xd9', start) > 0
        return '' if complete else 'is truncated (a JPEG without end marker)'
    if content.startswith(b'\x89PNG\r\n\x1a\n') and content.rfind(b'IEND') < 0:
        return 'is truncated (a PNG without IEND chunk)'
    return ''


def _start_of_jpeg_scan(content: bytes) -> int:
    """Return the offset of a JPEG's first scan, or -1.

    The segments before it are skipped, since an EXIF thumbnail there has its own end marker.
    """
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] != 0xDA:
        if content[position + 1] == 0xFF:  # a fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return content.find(b'\xff\xda', position)
