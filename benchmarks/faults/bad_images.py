"""A training on a folder of which one image in twenty is bad: all are named, none ends it.

python -m benchmarks.faults.bad_images
"""

import io
import os
import struct
import tempfile
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.results import write_row
from benchmarks.faults.tiny_runs import FOLDER
from mmebm.commands.train import main as train
from mmebm.engine.hooks.broken_images_hook import FILE
from mmebm.error_text import printable

IMAGES, BAD = 10_000, 500


def encoded(kind: str, seed: int, mode: str = 'RGB', size: tuple[int, int] = (24, 20), **options) -> bytes:
    """A file of noise, of a format of Pillow's."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode, palette=Image.Palette.ADAPTIVE).save(file, kind, **options)
    return file.getvalue()


def deep(seed: int) -> bytes:
    """A grey PNG of 16 bits."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 2**16, (20, 24), dtype=np.uint16)).save(file, 'PNG')
    return file.getvalue()


def animated(seed: int) -> bytes:
    """A GIF of two frames."""
    frames = [Image.new('RGB', (24, 20), (seed % 256, i, 0)) for i in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, 'GIF', save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned(seed: int) -> bytes:
    """A JPEG that its EXIF tag turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded('JPEG', seed, exif=exif)


def bomb(_: int) -> bytes:
    """A PNG of 30,000 x 30,000 pixels in some hundred bytes."""
    header = struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(b'\0' * 90_000)), (b'IEND', b'')]
    parts = [struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


# Unusual, but sound: the file's name for a number, and its content.
ODD: list[tuple[str, Callable[[int], bytes]]] = [
    ('cmyk {}.jpg', lambda i: encoded('JPEG', i, 'CMYK')),
    ('deep {}.png', deep),
    ('palette {}.png', lambda i: encoded('PNG', i, 'P')),
    ('moving {}.gif', animated),
    ('pixel {}.png', lambda i: encoded('PNG', i, size=(1, 1))),
    ('wide {}.png', lambda i: encoded('PNG', i, size=(30_000, 2))),
    ('turned {}.jpg', turned),
    ('a PNG {}.jpg', lambda i: encoded('PNG', i)),
    (os.fsdecode(b'\xff\xfe {}.png'), lambda i: encoded('PNG', i)),
]
BROKEN: list[tuple[str, Callable[[int], bytes]]] = [
    ('truncated {}.jpg', lambda i: encoded('JPEG', i)[:-200]),
    ('truncated {}.png', lambda i: encoded('PNG', i)[:-200]),
    ('truncated {}.gif', lambda i: animated(i)[:30]),
    ('empty {}.jpg', lambda i: b''),
    ('text {}.jpg', lambda i: b'<html>404</html>'),
    ('bomb {}.png', bomb),
    (os.fsdecode(b'no image \xff {}.png'), lambda i: b'\0' * 100),
]


def make_folder(root: Path) -> list[str]:
    """Fill a folder; returns the paths of the bad files, as they are printed."""
    bad = []
    for i in range(IMAGES):
        folder = root / f'{i % 20}'
        folder.mkdir(parents=True, exist_ok=True)
        if i < BAD:
            kind = i % (len(BROKEN) + 3)
            name = BROKEN[kind][0].format(i) if kind < len(BROKEN) else f'special {i}.jpg'
            path = folder / name
            if kind < len(BROKEN):
                path.write_bytes(BROKEN[kind][1](i))
            elif kind == len(BROKEN):
                path.symlink_to('absent.jpg')
            elif kind == len(BROKEN) + 1:
                path.symlink_to(path.name)
            else:
                os.mkfifo(path)
            bad.append(printable(str(path)))
        else:
            name, content = ODD[i % len(ODD)] if i % 25 == 0 else ('{}.jpg', lambda i: encoded('JPEG', i))
            (folder / name.format(i)).write_bytes(content(i))
    return bad


def main() -> None:
    """Train, and write the row."""
    with tempfile.TemporaryDirectory() as place:
        root, work_dir, config = Path(place, 'images'), Path(place, 'run'), Path(place, 'config.py')
        config.write_text(FOLDER)
        bad = make_folder(root)
        fatal = 0
        try:
            train([str(config), '--work-dir', str(work_dir), '--cfg-options', f'data_root={root}'])
        except Exception:
            traceback.print_exc()
            fatal = 1
        lines = (work_dir / FILE).read_text().splitlines() if (work_dir / FILE).is_file() else []
        named = [line.split('\t', 1)[1] for line in lines]
        row = dict(images=IMAGES, bad=len(bad), named=len({*bad} & {*named}), named_sound=len({*named} - {*bad}))
    write_row('bad_images', row | dict(fatal=fatal))


if __name__ == '__main__':
    main()
