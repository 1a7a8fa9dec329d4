"""Writes a folder of images as tar shards with an index (:mod:`mmebm.datasets.packed.shards`)."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from mmebm.datasets.classes import number_classes
from mmebm.datasets.listing import class_and_name, list_images
from mmebm.datasets.load_image import BrokenImageError, LoadImage
from mmebm.datasets.packed.shards import FORMAT, HEADER, MEMBER, read_about
from mmebm.error_text import printable
from mmebm.output_files import check_new, partial_file, write_atomically
from mmebm.provenance import digest_of

BROKEN = 'broken_images.txt'
READ_AT_ONCE = 64  # files, by all threads


class Packed(NamedTuple):
    """What a folder of shards holds: images, shards, classes (None without), and a message for each broken file."""

    images: int
    shards: int
    classes: int | None
    broken: list[str]


@dataclass
class Source:
    """Images to pack.

    Attributes:
        folder: That holds them.
        images: Paths within it.
        labels: The number of each one's class, or -1.
        classes: Names, None without.
        skipped: Lines that say what was wrong with files that were not listed.
    """

    folder: Path
    images: list[str]
    labels: list[int]
    classes: list[str] | None
    skipped: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """Of all paths, in their order."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(os.fsencode(image) + b'\0')
        return digest.hexdigest()


def find_images(folder: Path) -> Source:
    """List the images of a folder in the order of ``ImageFolder``; its subfolders are classes if all lie in one.

    Raises:
        FileNotFoundError: It is no folder, or holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{str(folder)!r} is no folder')
    listing = list_images(str(folder))
    listing.log('mmebm-pack')
    if not listing.images:
        raise FileNotFoundError(f'there is no image in {str(folder)!r}; found: {listing}. {listing.faults()}'.rstrip())
    skipped = [f'{folder / path}: {fault}' for fault, paths in listing.skipped.items() for path in paths]
    if not all('/' in image for image in listing.images):
        return Source(folder, listing.images, [-1] * len(listing.images), None, skipped)
    listing.images.sort(key=class_and_name)
    numbers, samples = number_classes(listing, None, 'mmebm-pack')
    return Source(folder, listing.images, [label for _, label in samples], [*numbers], skipped)


def pack(folder: Path, out: Path, images_per_shard: int) -> Packed:
    """Write the shards that are not there yet, then the index.

    A shard gets its name when it is whole, so a call that was interrupted is continued by the same call. Members are
    the files' own bytes, named ``000000042.jpg`` by their number, since names may be long, twice the same or no UTF-8;
    the names are in the index. With classes, each is followed by ``000000042.cls``.

    Args:
        folder: Of images, nested or not.
        out: New, empty, or of an interrupted call.
        images_per_shard: How many files, broken ones counted.

    Raises:
        FileNotFoundError: There is no image.
        FileExistsError: ``out`` holds something else, or shards of other images.
        ValueError: ``out`` is within the folder, or all images are broken.
    """
    if images_per_shard < 1:
        raise ValueError(f'--images-per-shard {images_per_shard}: must be at least 1')
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f'--out {out} lies in the folder that is packed; name one outside of {folder}')
    source = find_images(folder)
    begin(out, source, images_per_shard)
    parts = out / 'parts'
    if not (out / 'index').is_dir():
        parts.mkdir(exist_ok=True)
        starts = range(0, len(source.images), images_per_shard)
        for number, start in enumerate(track(starts, description=f'Packing {len(source.images)} images')):
            if not part_file(parts, number).is_file():
                write_shard(out, number, source, range(len(source.images))[start : start + images_per_shard])
        write_index(out, source, [part_file(parts, number) for number in range(len(starts))])
    shutil.rmtree(parts, ignore_errors=True)
    about = read_about(out)
    broken = (out / BROKEN).read_text(encoding='utf-8').splitlines()
    return Packed(about['images'], len(about['shards']), about['classes'] and len(about['classes']), broken)


def begin(out: Path, source: Source, images_per_shard: int) -> None:
    """Note in ``pack.json`` what is packed, or check that an interrupted call packed the same.

    Raises:
        FileExistsError: It did not, or the folder is in use.
    """
    facts = dict(images=len(source.images), paths_sha256=source.digest(), images_per_shard=images_per_shard)
    note = out / 'pack.json'
    if not note.is_file():
        check_new(out, '--out')
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps(facts).encode())
        return
    try:
        before = json.loads(note.read_text())
    except ValueError:
        before = {}
    changed = [f'{key} was {before.get(key)}, is {value}' for key, value in facts.items() if before.get(key) != value]
    if changed:
        raise FileExistsError(
            f'--out {out} was begun with other images or options ({"; ".join(changed)}): go on with the same, or '
            'remove it first'
        )


def write_shard(out: Path, number: int, source: Source, chosen: range) -> None:
    """Write a shard beside its place, put it there, and then what is in it to ``parts/``; none if all are broken."""
    path = out / f'shard-{number:05d}.tar'
    partial_path, members, names, broken = partial_file(path), [], [], []
    with partial_path.open('wb') as file:
        with tarfile.open(fileobj=file, mode='w', format=tarfile.USTAR_FORMAT) as tar:
            for i, found in zip(chosen, read_all(source, chosen), strict=True):
                image, label = source.images[i], source.labels[i]
                if isinstance(found, str):
                    broken.append(found)
                    continue
                members.append((number, label, tar.offset + HEADER, len(found), 0))
                names.append(os.fsencode(image))
                _add(tar, f'{i:09d}{Path(image).suffix.lower()}', found)
                if source.classes is not None:
                    _add(tar, f'{i:09d}.cls', str(label).encode())
        file.flush()
        os.fsync(file.fileno())
    if members:
        partial_path.replace(path)
    else:
        partial_path.unlink()
    buffer = io.BytesIO()
    np.savez(
        buffer, members=np.array(members, MEMBER), names=np.frombuffer(b''.join(names), np.uint8),
        name_lengths=np.array([len(name) for name in names], np.uint64), broken=np.array(broken, np.str_),
        size=path.stat().st_size if members else 0,
    )  # fmt: skip
    write_atomically(part_file(out / 'parts', number), buffer.getvalue())


def part_file(parts: Path, number: int) -> Path:
    """Where the index of one shard is until all are written."""
    return parts / f'{number:05d}.npz'


def read_all(source: Source, chosen: Sequence[int]) -> Iterator[bytes | str]:
    """The bytes of each file, or what is wrong with it; several threads decode each to see."""
    loader = LoadImage()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for start in range(0, len(chosen), READ_AT_ONCE):
            paths = [source.folder / source.images[i] for i in chosen[start : start + READ_AT_ONCE]]
            yield from threads.map(partial(read_sound, loader=loader), paths)


def read_sound(path: Path, loader: LoadImage) -> bytes | str:
    """The bytes of an image file, or the message that says what is wrong with it."""
    name = printable(str(path))
    try:
        content = path.read_bytes()
        loader.decode(content, name)
    except BrokenImageError as error:
        return str(error)
    except OSError as error:
        return f'{name}: cannot be read ({error.strerror or error})'
    except ValueError:  # sound, but of a depth whose range of values the training's config has to give
        pass
    return content


def write_index(out: Path, source: Source, parts: Sequence[Path]) -> None:
    """Join the indices of all shards.

    Raises:
        ValueError: No image is sound.
    """
    index = out / '.index.partial'
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir()
    images, broken, paths = 0, [*source.skipped], []
    for part in parts:
        with np.load(part) as found:
            images += len(found['members'])
            broken += map(str, found['broken'])
    (out / BROKEN).write_text(''.join(f'{printable(line)}\n' for line in broken), encoding='utf-8')
    if not images:
        raise ValueError(f'all {len(source.images)} images in {source.folder} are broken; {out / BROKEN} names each')
    members = np.lib.format.open_memmap(index / 'members.npy', 'w+', MEMBER, (images,))
    shards, start, name_bytes = [], 0, 0
    with (index / 'names.bin').open('wb') as names:
        for number, part in enumerate(parts):
            with np.load(part) as found:
                rows, lengths, text, size = (found[key] for key in ('members', 'name_lengths', 'names', 'size'))
            if not len(rows):
                continue
            ends = np.cumsum(lengths)
            paths += (os.fsdecode(name.tobytes()) for name in np.split(text, ends[:-1].astype(np.int64)))
            rows['shard'], rows['name_end'] = len(shards), name_bytes + ends
            members[start : start + len(rows)] = rows
            names.write(text.tobytes())
            shards.append((f'shard-{number:05d}.tar', int(size)))
            start, name_bytes = start + len(rows), name_bytes + int(ends[-1])
    members.flush()
    about = dict(format=FORMAT, images=images, name_bytes=name_bytes, classes=source.classes, shards=shards)
    (index / 'about.json').write_text(json.dumps(about | dict(files_sha256=digest_of(paths))))
    index.rename(out / 'index')


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
