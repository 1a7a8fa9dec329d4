"""Which checkpoint a training resumes from."""

from pathlib import Path

from mmengine.config import Config

from mmebm.unpickling import unpickle

LAST = 'last_checkpoint'  # mmengine's file that names the one saved last


def choose_start(cfg: Config, otherwise: str | None) -> None:
    """Resume from the last checkpoint in the work folder, or start as without ``--resume``, in place.

    Args:
        cfg: The config, which asks to resume.
        otherwise: Its ``load_from``, which mmpretrain's script drops; used where there is no checkpoint.

    Raises:
        FileNotFoundError: The last checkpoint is missing, or there are checkpoints and none is known to be the last.
    """
    latest = find_latest(Path(cfg.work_dir), (cfg.get('default_hooks') or {}).get('checkpoint') or {})
    if latest is not None:
        cfg.load_from = str(latest)
    elif otherwise:
        cfg.resume, cfg.load_from = False, otherwise


def find_latest(work_dir: Path, hook: dict) -> Path | None:
    """The checkpoint that a work folder names as the last one; None if the folder has none.

    The file may be named by its absolute path in the folder that this one is a copy of.

    Args:
        work_dir: The folder.
        hook: Config of mmengine's ``CheckpointHook``.

    Raises:
        FileNotFoundError: It is missing, or there are checkpoints and none is known to be the last.
    """
    folder = Path(hook['out_dir'], work_dir.resolve().name) if hook.get('out_dir') else work_dir
    found = ', '.join(sorted(path.name for path in folder.glob('*.pth'))) or 'none'
    advice = f'Name the one to resume from, as --resume FILE; in {folder}: {found}'
    if not (work_dir / LAST).is_file():
        if found != 'none':
            raise FileNotFoundError(f'{work_dir} has checkpoints, but no file "{LAST}" that names the last. {advice}')
        return None
    path = folder / Path((work_dir / LAST).read_text().strip()).name
    if not path.exists():  # a folder where DeepSpeed saved it
        raise FileNotFoundError(f'{work_dir / LAST} names {path.name}, which is not there. {advice}')
    return path


def check_readable(path: str) -> None:
    """Check that a file to resume from is there, whole, and holds nothing that could run code.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, no checkpoint, or pickles more than mmengine's runner saves.
    """
    if '://' in path or Path(path).is_dir():
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f'No checkpoint "{path}" to resume from')
    try:
        unpickle(path, is_mapped=True)
    except ValueError as error:
        others = sorted({other.name for other in Path(path).parent.glob('*.pth')} - {Path(path).name})
        raise ValueError(
            f'{error}. Resume from another one, as --resume FILE; beside it: {", ".join(others) or "none"}'
        ) from error
