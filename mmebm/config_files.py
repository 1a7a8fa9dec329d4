"""Finds mmebm's config files by path or name."""

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """The folder of mmebm's configs: in the installed package, or next to it in a checkout."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def find_config(name: str) -> Path:
    """The config file at a path, or of the name of one of mmebm's configs such as ``ebm_vit-b_in1k``.

    Args:
        name: A path, or a name within mmebm's configs; the folder and the ending ``.py`` may be left out.

    Raises:
        FileNotFoundError: There is no such file and no config of that name.
        ValueError: Several configs have that name.
    """
    return Path(name) if Path(name).is_file() else find_shipped_config(name)


def find_shipped_config(name: str) -> Path:
    """One of mmebm's config files, whatever the current folder holds.

    Args:
        name: As in ``find_config``, but no path.

    Raises:
        FileNotFoundError: There is no config of that name.
        ValueError: Several configs have that name.
    """
    folder = config_folder()
    wanted = Path(name if name.endswith('.py') else f'{name}.py')
    if (folder / wanted).is_file():
        return folder / wanted
    known = {path.relative_to(folder) for path in folder.rglob('*.py') if '_base_' not in path.parts}
    exact = {wanted, wanted.relative_to('configs')} if wanted.parts[0] == 'configs' else {wanted}
    found = sorted(known & exact) or sorted(path for path in known if path.name == str(wanted))
    if len(found) > 1:
        raise ValueError(f'Config "{name}" is not unique, give one of: {", ".join(map(str, found))}')
    if not found:
        close = difflib.get_close_matches(str(wanted), sorted(map(str, known)), n=3, cutoff=0.4)
        hint = f' Close names: {", ".join(close)}.' if close else ''
        raise FileNotFoundError(f'No config file "{name}", and no config of that name in {folder}.{hint}')
    return folder / found[0]
