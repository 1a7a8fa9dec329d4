"""Draws the pictures of ``Shapes``: a background, and objects with outline, texture, shading and shadow.

All geometry is in unit coordinates (x to the right, y down, the image spans 0..1), so that an index gives the same
picture at every resolution. Colours are float BGR in 0..255 until the end.
"""

import colorsys
import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np


class Drawing(NamedTuple):
    """A picture, and the object that each pixel belongs to."""

    img: np.ndarray  # uint8 (H, W, 3), BGR
    owners: np.ndarray  # uint8 (H, W): 0 = background, i = the i-th object from the back, counted from 1
    labels: list[int]  # the classes of the objects, from back to front


class _Shape(NamedTuple):
    label: int
    x: float  # the centre
    y: float
    radius: float


def draw(label: int, size: int, rng: np.random.Generator) -> Drawing:
    """Draw a picture of ``size`` x ``size`` pixels whose main object is of class ``label``."""
    bearing = math.radians(-90 + rng.uniform(-50, 50))
    light = math.cos(bearing), math.sin(bearing)  # towards the light: above, so that pictures have an up
    canvas = _background(size, light, rng)
    owners = np.zeros((size, size), np.uint8)
    shapes = _arrange(label, rng)
    for number, shape in enumerate(shapes, start=1):
        _paint(canvas, owners, number, shape, light, rng)
    img = cv2.convertScaleAbs(cv2.merge(list(canvas)))  # rounds and saturates
    return Drawing(img, owners, [shape.label for shape in shapes])


def _arrange(label: int, rng: np.random.Generator) -> list[_Shape]:
    """Place the objects, from back to front: up to two small ones around the main one."""
    radius = rng.uniform(0.19, 0.37)
    low = min(radius + 0.06, 0.42)
    main = _Shape(label, *rng.uniform(low, 1 - low, 2).tolist(), radius)
    others = []
    for _ in range(rng.integers(3)):
        angle, small, gap, pick = rng.random(4).tolist()
        angle *= 2 * math.pi
        small = 0.09 + 0.07 * small
        distance = radius * (0.85 + 0.5 * gap) + small * 0.5
        x = min(max(main.x + distance * math.cos(angle), small), 1 - small)
        y = min(max(main.y + distance * math.sin(angle), small), 1 - small)
        others.append(_Shape((label + 1 + int(pick * (len(_OUTLINES) - 1))) % len(_OUTLINES), x, y, small))
    return [*others, main]


def _paint(
    canvas: np.ndarray,
    owners: np.ndarray,
    number: int,
    shape: _Shape,
    light: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Paint one object and its shadow on the canvas (3, H, W), in place."""
    size, radius = len(owners), shape.radius
    rotation, own_hue, hue, own_texture, texture, saturation, value, phase = rng.random(8).tolist()
    hue = shape.label / len(_OUTLINES) + 0.06 * (hue - 0.5) if own_hue < 0.6 else hue
    texture = shape.label % len(_TEXTURES) if own_texture < 0.6 else int(texture * len(_TEXTURES))
    texture, partner = _TEXTURES[texture]
    # Yellow is brighter than blue at the same `value`: brightness depends on hue.
    color = _bgr(hue, 0.65 + 0.3 * saturation, 0.75 + 0.25 * value)
    second = _bgr(hue + partner[0], (0.65 + 0.3 * saturation) * partner[1], (0.75 + 0.25 * value) * partner[2])

    reach = 1.4 * radius  # with the shadow
    rows = slice(max(math.floor((shape.y - reach) * size), 0), math.ceil((shape.y + reach) * size))
    columns = slice(max(math.floor((shape.x - reach) * size), 0), math.ceil((shape.x + reach) * size))
    x = (_centers(size)[columns] - shape.x) / radius
    y = (_centers(size)[rows, None] - shape.y) / radius
    cos, sin = math.cos(2 * math.pi * rotation), math.sin(2 * math.pi * rotation)
    u = x * cos + y * sin
    v = y * cos - x * sin
    distance = _OUTLINES[shape.label](u, v)
    pixels = radius * size  # of one unit of u, v and distance

    shift = np.float32([[1, 0, -0.16 * pixels * light[0]], [0, 1, -0.16 * pixels * light[1]]])
    shadow = cv2.warpAffine(distance, shift, distance.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    region = canvas[:, rows, columns]
    region *= 1 - 0.45 * _clip(0.45 - 3.5 * shadow)

    shade = 0.96 + (0.2 * light[0]) * x + (0.2 * light[1]) * y
    shade *= 0.72 + 0.28 * _clip(-4 * distance)  # darker towards the rim
    mix = texture(u, v, pixels, phase)
    paint = (mix * (second - color) + color) * shade
    paint -= region
    paint *= _coverage(distance * pixels)
    region += paint
    owners[rows, columns][distance < 0] = number


def _background(size: int, light: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    kind, own_hue, hue, jitter, saturation, value = rng.random(6).tolist()
    field, (hue_a, hue_b), (value_a, value_b) = _BACKGROUNDS[int(kind * len(_BACKGROUNDS))]
    shift = 0.06 * (jitter - 0.5) if own_hue < 0.65 else hue
    saturation, value = 0.25 + 0.35 * saturation, 0.8 + 0.25 * value
    color = _bgr(hue_a + shift, saturation, value_a * value)
    second = _bgr(hue_b + shift, saturation, value_b * value)
    noise = _noise(size, rng)
    mix = field(size, noise, rng)
    centered = 2 * _centers(size) - 1
    shade = (1 + 0.14 * light[0] * centered) + (0.14 * light[1] * centered)[:, None] + 0.06 * noise
    return (mix * (second - color) + color) * shade


def _bgr(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return a colour, (3, 1, 1)."""
    rgb = colorsys.hsv_to_rgb(hue % 1, saturation, min(value, 1))
    return np.array(rgb[::-1], np.float32).reshape(3, 1, 1) * 255


def _clip(array: np.ndarray) -> np.ndarray:
    """Clip to 0..1; faster on small arrays than np.clip."""
    return np.maximum(np.minimum(array, 1), 0)


def _coverage(pixels: np.ndarray) -> np.ndarray:
    """Return the share of a pixel inside an edge, 0..1, from its signed distance in pixels (negative = inside)."""
    return _clip(0.5 - pixels)


@lru_cache
def _centers(size: int) -> np.ndarray:
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of three octaves, (H, W), about -1..1."""
    noise = np.zeros((size, size), np.float32)
    for cells, amplitude in ((3, 3.0), (7, 1.5), (16, 0.7)):
        grid = amplitude * (rng.random((cells, cells), np.float32) - 0.5)
        noise += _upsampling(cells, size) @ grid @ _upsampling(cells, size).T
    return noise


@lru_cache
def _upsampling(cells: int, size: int) -> np.ndarray:
    """Return the matrix (size, cells) of a bicubic interpolation along one side."""
    return cv2.resize(np.eye(cells, dtype=np.float32), (cells, size), interpolation=cv2.INTER_CUBIC)


# --- backgrounds: (size, noise, rng) -> (H, W), the share of the second colour ----------------------------------------


def _slope(size: int, angle: float, scale: float) -> np.ndarray:
    """Return the coordinate along ``angle`` (in turns), 0 in the middle of the image."""
    centered = scale * (_centers(size) - 0.5)
    return math.cos(2 * math.pi * angle) * centered + (math.sin(2 * math.pi * angle) * centered)[:, None]


def _dusk(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _clip(0.5 + _slope(size, 0.25 + 0.2 * (rng.random() - 0.5), 1.0))


def _clouds(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _clip(0.5 + 0.55 * noise)


def _waves(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle, frequency = rng.random(2).tolist()
    return 0.5 + 0.5 * np.sin(_slope(size, angle, 2 * math.pi * (2.5 + 3 * frequency)) + 0.75 * noise)


def _hills(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = _centers(size), _centers(size)[:, None]
    mix = 0.25 * y
    for base, draw in zip((0.35, 0.55, 0.75), rng.random((3, 3)).tolist(), strict=True):
        crest = base + 0.1 * (draw[0] - 0.5) + 0.07 * np.sin((5 + 6 * draw[1]) * x + 6.3 * draw[2])
        mix = mix + 0.25 * _coverage((crest - y) * size)
    return mix


def _glow(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = rng.random(2).tolist()
    squared = (_centers(size) - x) ** 2 + ((_centers(size) - y) ** 2)[:, None]
    return _clip(1.1 * np.sqrt(squared))


def _tiles(size: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count, x, y = rng.random(3).tolist()
    frequency = math.pi * (3 + 3 * count)
    waves = [np.sin(frequency * _centers(size) + math.pi * offset) for offset in (x, y)]
    return 0.15 + 0.7 * _coverage(waves[0] * waves[1][:, None] * (size / frequency))


# field, hues and values of the two colours
_BACKGROUNDS = (
    (_dusk, (0.75, 0.06), (0.7, 1.0)),
    (_clouds, (0.58, 0.62), (0.65, 1.0)),
    (_waves, (0.47, 0.52), (0.6, 0.9)),
    (_hills, (0.55, 0.3), (1.0, 0.45)),
    (_glow, (0.14, 0.95), (1.0, 0.5)),
    (_tiles, (0.08, 0.04), (0.85, 0.5)),
)


# --- textures: (u, v, pixels per unit, phase) -> (H, W), the share of the second colour -------------------------------


def _plain(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return np.zeros_like(u)


def _fade(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return _clip(0.5 + 0.6 * u)


def _stripes(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return _coverage(np.sin(9 * u + 6.3 * phase) * (pixels / 9))


def _checks(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return _coverage(np.sin(6 * u + 6.3 * phase) * np.sin(6 * v) * (pixels / 6))


def _dots(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return _coverage((1.1 - np.cos(8.5 * u + 6.3 * phase) - np.cos(8.5 * v)) * (pixels / 9))


def _circles(u: np.ndarray, v: np.ndarray, pixels: float, phase: float) -> np.ndarray:
    return _coverage(np.sin(11 * cv2.magnitude(u, v) + 6.3 * phase) * (pixels / 11))


# texture, and the second colour relative to the first: change of hue, factors of saturation and value
_TEXTURES = (
    (_plain, (0.0, 1.0, 1.0)),
    (_stripes, (0.0, 0.15, 1.2)),
    (_dots, (0.5, 0.9, 1.0)),
    (_fade, (0.14, 1.0, 0.9)),
    (_checks, (0.03, 1.0, 0.45)),
    (_circles, (0.85, 0.7, 0.75)),
)


# --- outlines: (u, v) -> (H, W), the signed distance to the edge, negative inside; in the unit circle -----------------


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return cv2.magnitude(u, v) - 0.92


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(cv2.magnitude(u, v) - 0.72) - 0.26


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.7


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) * 0.866 - 0.5 * v, v) - 0.5


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A pentagram: points inside at least four of its five lines, so the second largest distance counts."""
    largest = np.full_like(u, -np.inf)
    second = largest
    for k in range(5):
        line = u * math.cos(0.4 * math.pi * k) + v * math.sin(0.4 * math.pi * k)
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return np.maximum(second - 0.306, cv2.magnitude(u, v) - 0.98)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 0.92, np.minimum(a, b) - 0.3)


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A square on its corner, and a disc on each of its upper sides."""
    a = np.abs(u)
    diamond = (a + np.abs(v - 0.1) - 0.75) * 0.7071
    return np.minimum(diamond, cv2.magnitude(a - 0.375, v + 0.275) - 0.5303)


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(cv2.magnitude(u, v) - 0.95, 0.75 - cv2.magnitude(u - 0.5, v))


def _flower(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    petals = [
        cv2.magnitude(u - 0.6 * math.cos(0.4 * math.pi * k), v - 0.6 * math.sin(0.4 * math.pi * k)) for k in range(5)
    ]
    nearest = petals[0]
    for petal in petals[1:]:
        nearest = np.minimum(nearest, petal)
    return nearest - 0.36


def _arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a = np.abs(v)
    head = np.maximum((u + a) * 0.7071 - 0.66, 0.05 - u)
    shaft = np.maximum(a - 0.28, np.abs(u + 0.4) - 0.5)
    return np.minimum(head, shaft)


_OUTLINES = (_arrow, _crescent, _cross, _disc, _flower, _heart, _ring, _square, _star, _triangle)
