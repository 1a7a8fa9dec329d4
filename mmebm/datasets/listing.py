"""Which files below a folder are images, and what is to be said of the others."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.logging import MMLogger

from mmebm.error_text import counted, first_few, printable

# What OpenCV decodes, by its manual and by trial; OpenEXR is left out, which it only reads if told to.
EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.jp2', '.j2k', '.png', '.apng', '.webp', '.avif', '.gif', '.bmp'),
    *('.dib', '.tif', '.tiff', '.pbm', '.pgm', '.ppm', '.pnm', '.pam', '.pxm', '.ras', '.sr'),
)

# Folders that systems leave beside data: of macOS archives, of Synology's and QNAP's servers, of Windows, of ext4.
SYSTEM_FOLDERS = frozenset(
    {'__MACOSX', '@eaDir', '#recycle', '@Recycle', '$RECYCLE.BIN', 'System Volume Information', 'lost+found'}
)

# How many endings are counted one by one; frames of a film may have a different one each.
ENDINGS_SHOWN = 12


@dataclass
class Listing:
    """What was found below a folder; paths are relative to it.

    Attributes:
        folder: The folder.
        images: Paths, sorted.
        used: Number of images by ending.
        left_out: Number of other files by ending.
        hidden: Paths of hidden files and folders, which are not looked into.
        skipped: Paths of what cannot be read, by what is wrong with it.
    """

    folder: str
    images: list[str] = field(default_factory=list)
    used: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        """Images and what was left out, by ending."""
        found = f'{counted(len(self.images), "image")} in {self.folder!r}'
        if self.used:
            found += f' ({_by_ending(self.used)})'
        left_out = [_by_ending(self.left_out)] if self.left_out else []
        if self.hidden:
            left_out.append(f'{len(self.hidden)} hidden ({first_few(sorted(self.hidden))})')
        return f'{found}; left out: {", ".join(left_out)}' if left_out else found

    def faults(self) -> str:
        """What cannot be read, by what is wrong with it; empty if there is nothing."""
        return '; '.join(f'{len(paths)} {kind} ({first_few(sorted(paths))})' for kind, paths in self.skipped.items())

    def log(self, name: str) -> None:
        """Say in one line what a data set found, and in another what it could not read."""
        logger = MMLogger.get_current_instance()
        logger.info(f'{name}: {self}')
        if self.skipped:
            logger.warning(f'{name}: skipped in {self.folder!r}: {self.faults()}')


def list_images(folder: str, extensions: Sequence[str] = EXTENSIONS, in_classes: bool = False) -> Listing:
    """List all images below a folder, at any depth. Links are followed, but not to a folder that they lie in.

    Args:
        folder: The folder.
        extensions: Endings of images in lower case; upper case matches too, and an empty one matches all files.
        in_classes: Whether images that lie in the folder itself, and in none of its subfolders, are skipped.
    """
    listing = Listing(folder)
    _walk(listing, '', (Path(folder).resolve(),), tuple(extensions))
    if in_classes:
        outside = [path for path in listing.images if '/' not in path]
        if outside:
            listing.skipped['outside the class folders'] = outside
            listing.used -= Counter(map(_ending, outside))
            listing.images = [path for path in listing.images if '/' in path]
    # By class first, as mmpretrain numbers them: `a` comes before `a-b`, but `a-b/1.jpg` before `a/1.jpg`.
    listing.images.sort(key=class_and_name if in_classes else None)
    return listing


def class_and_name(path: str) -> list[str]:
    """The first folder of a path, and the rest."""
    return path.split('/', 1)


def class_names(folder: str | Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and links back to it."""
    above = (Path(folder).resolve(),)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry) and not _leads_back(entry, above)]
    return sorted(name for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is none of the user's, such as ``.ipynb_checkpoints`` or ``__MACOSX``."""
    return name.startswith('.') or name in SYSTEM_FOLDERS


def _walk(listing: Listing, relative: str, above: tuple[Path, ...], extensions: tuple[str, ...]) -> None:
    """Add what a folder holds.

    Args:
        listing: To add to.
        relative: The folder's path below the listing's, empty or with a slash at its end.
        above: The folder and those that were gone through to reach it, without links.
        extensions: As in ``list_images``.
    """
    try:
        with os.scandir(Path(listing.folder, relative)) as found:
            entries = list(found)
    except OSError:
        listing.skipped['not readable'].append(relative or '.')
        return
    for entry in entries:
        path = f'{relative}{entry.name}'
        try:
            if is_hidden(entry.name):
                listing.hidden.append(path)
            elif not entry.is_dir():
                _add_file(listing, path, entry.stat(), extensions)
            elif _leads_back(entry, above):
                listing.skipped['linked to a folder above'].append(path)
            else:
                _walk(listing, f'{path}/', (*above, Path(entry).resolve()), extensions)
        except OSError as error:
            is_broken = entry.is_symlink() and not isinstance(error, PermissionError)
            listing.skipped['broken links' if is_broken else 'not readable'].append(path)


def _add_file(listing: Listing, path: str, status: os.stat_result, extensions: tuple[str, ...]) -> None:
    if not path.lower().endswith(extensions):
        listing.left_out[_ending(path)] += 1
    elif not stat.S_ISREG(status.st_mode):
        listing.skipped['no regular files'].append(path)
    elif not status.st_size:
        listing.skipped['empty'].append(path)
    else:
        listing.images.append(path)
        listing.used[_ending(path)] += 1


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _leads_back(entry: os.DirEntry, above: tuple[Path, ...]) -> bool:
    """Whether a folder is, or holds, one of those above it."""
    real = Path(entry).resolve()
    return any(other.is_relative_to(real) for other in above)


def _ending(path: str) -> str:
    _, point, ending = path.rpartition('/')[2].rpartition('.')
    return f'{point}{ending.lower()}' if point else ''


def _by_ending(numbers: Counter) -> str:
    """As ``48 .jpg, 3 .png, 1 without an ending``, the most frequent first."""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    texts = [f'{number} {printable(ending) or "without an ending"}' for ending, number in ordered[:ENDINGS_SHOWN]]
    others = sum(number for _, number in ordered[ENDINGS_SHOWN:])
    return ', '.join([*texts, f'{others} others'] if others else texts)
