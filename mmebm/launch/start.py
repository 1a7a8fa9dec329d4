"""Which checkpoint a training resumes from."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmebm.launch.newest import fault, newest_whole
from mmebm.unpickling import unpickle

LAST = 'last_checkpoint'  # mmengine's file that names the one saved last


def choose_start(cfg: Config, otherwise: str | None) -> None:
    """Resume from the last checkpoint in the work folder, or start as without ``--resume``, in place.

    Args:
        cfg: The config, which asks to resume.
        otherwise: Its ``load_from``, which mmpretrain's script drops; used where there is no checkpoint.

    Raises:
        FileNotFoundError: There are checkpoints, and a training can resume from none.
    """
    latest = find_latest(Path(cfg.work_dir), (cfg.get('default_hooks') or {}).get('checkpoint') or {})
    if latest is not None:
        cfg.load_from = str(latest)
    elif otherwise:
        cfg.resume, cfg.load_from = False, otherwise


def find_latest(work_dir: Path, hook: dict) -> Path | None:
    """The newest whole checkpoint of a work folder; None if the folder has none.

    It is the one that the folder names as the last; if that is missing or damaged, or none is named, the newest of the
    others, and a warning says so. It may be named by its absolute path in the folder that this one is a copy of.

    Args:
        work_dir: The folder.
        hook: Config of mmengine's ``CheckpointHook``.

    Raises:
        FileNotFoundError: There are checkpoints, and a training can resume from none.
    """
    folder = Path(hook['out_dir'], work_dir.resolve().name) if hook.get('out_dir') else work_dir
    name = (work_dir / LAST).read_text().strip() if (work_dir / LAST).is_file() else ''
    newest = newest_whole(folder, folder / Path(name).name if name else None)
    found = ', '.join(sorted(path.name for path in folder.glob('*.pth')))
    if newest is None and (name or found):
        named = f'{work_dir / LAST} names {Path(name).name}' if name else f'no file "{LAST}" names one'
        raise FileNotFoundError(
            f'{folder} has no whole checkpoint of a training to resume from; {named}. Name another one, as --resume '
            f'FILE, or use another --work-dir; in {folder}: {found or "none"}'
        )
    return newest


def check_readable(path: str) -> Any:
    """Check that a file to resume from is there, whole, and holds nothing that could run code.

    Returns:
        What it holds; None of an address, or of a folder of DeepSpeed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, no checkpoint, or pickles more than mmengine's runner saves.
    """
    if '://' in path or Path(path).is_dir():
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f'No checkpoint "{path}" to resume from')
    try:
        if reason := fault(Path(path)):
            raise ValueError(f'{path} is truncated or no checkpoint ({reason})')
        return unpickle(path, is_mapped=True)
    except ValueError as error:
        others = sorted({other.name for other in Path(path).parent.glob('*.pth')} - {Path(path).name})
        raise ValueError(
            f'{error}. Resume from another one, as --resume FILE; beside it: {", ".join(others) or "none"}'
        ) from error
