"""What data sets of files share: a broken image causes a warning instead of ending the run."""

from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger
from mmpretrain.datasets import BaseDataset
from torch import Tensor

from mmebm.datasets.load_image import BrokenImageError


class SkipsBrokenImages(BaseDataset):
    """A data set in which another image stands in for a broken one, to be derived from together with another class.

    An image that :class:`LoadImage` finds broken is replaced by a random other one, logged once at level WARNING, and
    counted in :attr:`num_broken`; a training lists all at its end (:class:`mmebm.engine.BrokenImagesHook`). With
    ``test_mode=True`` it raises BrokenImageError instead.

    Attributes:
        skipped: Names of files that the data set has left out, by what is wrong with them.
    """

    def __init__(self, *args, **kwargs) -> None:
        self._broken = torch.zeros(0, dtype=torch.bool)
        self.skipped: dict[str, list[str]] = {}
        super().__init__(*args, **kwargs)

    @property
    def num_broken(self) -> int:
        """The number of broken files found so far by this process and its data loading workers."""
        return int(self._broken.sum())

    @property
    def broken(self) -> Tensor:
        """Whether each file is known to be broken, (len,), by this process and its data loading workers."""
        return self._broken

    def full_init(self) -> None:
        """List the files."""
        if not self._fully_initialized:
            super().full_init()
            self._reset_broken()

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep only these images."""
        super().get_subset_(indices)
        self._reset_broken()

    def get_subset(self, indices: Sequence[int] | int) -> 'SkipsBrokenImages':
        """Return a data set of only these images."""
        subset = super().get_subset(indices)
        subset._reset_broken()
        return subset

    def prepare_data(self, idx: int) -> dict | None:
        """Return image ``idx`` after the pipeline, or None if its file is broken."""
        if self._broken[idx] and not self.test_mode:
            return None
        try:
            return super().prepare_data(idx)
        except BrokenImageError as error:
            if self.test_mode:
                raise
            self._report(idx, error)
            return None

    def __getitem__(self, idx: int) -> dict:
        try:
            return super().__getitem__(idx)
        except Exception as error:
            if type(error) is not Exception:  # mmengine raises a plain one after `max_refetch` tries
                raise
            if self.test_mode:  # which tries once
                raise RuntimeError(f'Image {idx} of {self.img_prefix!r}: the pipeline returned None') from error
            raise RuntimeError(
                f'No usable image in {self.img_prefix!r} after {self.max_refetch + 1} tries: {self.num_broken} of '
                f'{len(self)} files are known to be broken (the log names each), and another transform that returns '
                'None counts as a try too. Check the folder `data_root` and the pipeline.'
            ) from error

    def _report(self, idx: int, error: BrokenImageError) -> None:
        if self._broken[idx]:
            return
        self._broken[idx] = True
        MMLogger.get_current_instance().warning(f'Skipped a broken image ({self.num_broken} so far): {error}')
        if self._broken.all():
            raise RuntimeError(
                f'All {len(self)} images in {self.img_prefix!r} are broken, the last one: {error}. The log names each; '
                'check the folder `data_root`.'
            )

    def _reset_broken(self) -> None:
        # One flag per file, not a counter: workers restart each epoch, and a file must not count twice. In shared
        # memory, so that the main process sees what its workers find.
        self._broken = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._broken.share_memory_()  # deep copies and unpickled tensors are not shared
