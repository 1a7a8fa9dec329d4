"""Checks that the installed packages are compatible, before one of them fails with a misleading error.

Everything is read from the metadata of the installed distributions; nothing heavy is imported. The version ranges come
from mmebm's own metadata, so setup.py is their only source.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

# The OpenMMLab original -> its continuation. Both install the same import package.
CONTINUATIONS = {
    'mmengine': 'onedl-mmengine',
    'mmengine-lite': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmcv-full': 'onedl-mmcv',
    'mmcv-lite': 'onedl-mmcv',
    'mmpretrain': 'onedl-mmpretrain',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmdet': 'onedl-mmdetection',
}


class EnvironmentMismatch(RuntimeError):
    """Installed packages are incompatible; the message ends with the command that fixes it.

    Not an ImportError: mmengine's registries swallow those and report "not in the registry" instead.
    """


@dataclass(frozen=True)
class Distribution:
    """The metadata of an installed distribution that the checks read."""

    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


# Maps a distribution's name to its metadata, or to None if it is not installed; in tests, `dict.get`.
Lookup = Callable[[str], Distribution | None]


def find_distribution(name: str) -> Distribution | None:
    """The installed distribution of that name, or None."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Distribution(found.version, tuple(found.requires or ()), tuple(found.metadata.get_all('Provides-Extra', [])))


def check_environment(find: Lookup = find_distribution) -> None:
    """Checks the installed distributions against each other and against mmebm's own requirements.

    Raises:
        EnvironmentMismatch: An OpenMMLab original is installed, torch and torchvision are incompatible, or a version is
            outside the range that mmebm requires (not checked if mmebm itself is not installed).
    """
    _check_originals(find)
    _check_ranges(find)
    _check_torchvision(find)


def _check_originals(find: Lookup) -> None:
    originals = [name for name in CONTINUATIONS if find(name)]
    if not originals:
        return
    ranges = {requirement.name: str(requirement) for requirement in _requirements(find)}
    replacements = sorted({CONTINUATIONS[name] for name in originals})
    raise EnvironmentMismatch(
        f'Installed: {", ".join(originals)}, the unmaintained OpenMMLab originals. mmebm runs on their continuation, '
        f'{", ".join(replacements)}, which has the same import names, so only one of the two may be installed. Run:\n'
        f'  pip uninstall -y {" ".join(originals)}\n'
        f'  pip install --force-reinstall --no-deps {_quoted(ranges.get(name, name) for name in replacements)}'
    )


def _check_ranges(find: Lookup) -> None:
    wrong, report = [], []
    for requirement in _requirements(find):
        found = find(requirement.name)
        if found and not requirement.specifier.contains(found.version, prereleases=True):
            wrong.append(str(requirement))
            report.append(f'{requirement.name} {found.version} (tested: {requirement.specifier})')
    if wrong:
        raise EnvironmentMismatch(
            f'Installed versions that mmebm does not support: {"; ".join(report)}. Run:\n  pip install {_quoted(wrong)}'
        )


def _check_torchvision(find: Lookup) -> None:
    torch, torchvision = find('torch'), find('torchvision')
    if not (torch and torchvision):
        return
    pinned = [r for r in map(Requirement, torchvision.requires) if r.name == 'torch' and r.marker is None]
    if any(not pin.specifier.contains(torch.version, prereleases=True) for pin in pinned):
        raise EnvironmentMismatch(
            f'torchvision {torchvision.version} is built for torch {pinned[0].specifier}, but torch {torch.version} is '
            f'installed. Run:\n  pip install --upgrade {_quoted([_public(torch, "torch"), "torchvision"])}'
        )
    if Version(torch.version).local == 'cpu' and Version(torchvision.version).local != 'cpu':
        raise EnvironmentMismatch(
            f'torch {torch.version} is a CPU-only build and torchvision {torchvision.version} a CUDA build; it would '
            f'fail with "operator torchvision::nms does not exist". Run:\n'
            f'  pip install --force-reinstall --no-deps {_public(torchvision, "torchvision")} '
            '--index-url https://download.pytorch.org/whl/cpu'
        )


def _requirements(find: Lookup) -> Iterator[Requirement]:
    """Requirements of mmebm that apply to this Python, including those of its extras, without markers."""
    mmebm = find('mmebm')
    if mmebm is None:
        return
    for requirement in map(Requirement, mmebm.requires):
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(marker.evaluate({'extra': extra}) for extra in ('', *mmebm.extras)):
            yield requirement


def _public(distribution: Distribution, name: str) -> str:
    return f'{name}=={Version(distribution.version).public}'


def _quoted(requirements: Iterator[str] | list[str]) -> str:
    return ' '.join(f'"{requirement}"' for requirement in requirements)
