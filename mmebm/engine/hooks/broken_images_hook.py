"""Lists the image files that a training could not use."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.datasets.skipping import SkipsBrokenImages
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.error_text import first_few, printable
from mmebm.output_files import write_atomically
from mmebm.registry import HOOKS

FILE, TAB = 'broken_images.txt', '\t'


@HOOKS.register_module()
@idle_in_dry_runs
class BrokenImagesHook(Hook):
    """After each epoch, list what :class:`ImageFolder`, :class:`TarShards` or :class:`HFImages` could not use.

    The list is ``broken_images.txt`` in the work dir.

    A line has what is wrong and the path. Files that were skipped when the folder was listed (empty, not readable,
    broken links) are among them. At the end, a warning counts them. ``tools/train.py`` adds this hook.
    """

    def before_train(self, runner: Runner) -> None:
        """Keep what a training that is resumed has listed."""
        file = Path(runner.work_dir, FILE)
        self._earlier = file.read_text(encoding='utf-8').splitlines() if runner.iter and file.is_file() else []

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the list."""
        self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the list and say how many there are."""
        if found := self._write(runner):
            paths = first_few(line.partition(TAB)[2] for line in found)
            runner.logger.warning(
                f'{len(found)} image files could not be used: {paths}. All are listed in {Path(runner.work_dir, FILE)}'
            )

    def _write(self, runner: Runner) -> list[str]:
        found = (item for folder in _folders(runner.train_dataloader.dataset) for item in _unusable(folder))
        lines = [*dict.fromkeys([*self._earlier, *(f'{fault}{TAB}{printable(path)}' for fault, path in found)])]
        if lines and is_main_process():
            write_atomically(Path(runner.work_dir, FILE), ''.join(f'{line}\n' for line in lines).encode())
        return lines


def _folders(dataset: object) -> Iterator[SkipsBrokenImages]:
    """The folders of a data set, which may be wrapped or several."""
    if isinstance(dataset, SkipsBrokenImages):
        yield dataset
    for child in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or [])]:
        if child is not None:
            yield from _folders(child)


def _unusable(folder: SkipsBrokenImages) -> Iterator[tuple[str, str]]:
    """What is wrong, and the path, of each file that some process could not use."""
    for fault, paths in folder.skipped.items():
        yield from ((fault, str(Path(folder.img_prefix, path))) for path in paths)
    flags = folder.broken.int()
    all_reduce(flags, 'max')
    for idx in flags.nonzero().flatten().tolist():
        yield 'broken', folder.get_data_info(idx)['img_path']
