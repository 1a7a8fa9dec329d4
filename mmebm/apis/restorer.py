"""The inferencer: restores images, and computes their energies and features."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from mmebm.apis.config_pipeline import color_type_of, evaluation_pipeline, held_out_corruptions, image_size_of
from mmebm.apis.corrupting import Corruption, corrupted, make_pair
from mmebm.apis.features import features_of
from mmebm.apis.loading import load_model
from mmebm.apis.results import POLARITY, ImageEnergy, ImageFeatures, RestoredImage
from mmebm.apis.sources import Item, Preparation, Prepared, expand, prepared
from mmebm.corruptions import CorruptedPair
from mmebm.datasets.load_image import BrokenImageError
from mmebm.energy import energy_gradient, restore
from mmebm.error_text import first_few
from mmebm.models.selfsup.base import BaseRestorer
from mmebm.models.selfsup.ebm import EBMAlgorithm
from mmebm.models.token_energies import of_images, token_map
from mmebm.option_check import check_whole_numbers
from mmebm.provenance import KEY

T = TypeVar('T')


class Batch(NamedTuple):
    """Images of one size, ready for the model.

    Attributes:
        names: N names.
        clean: (N, C, H, W), normalised.
        corrupted: Likewise; the same tensor without a corruption.
    """

    names: list[str]
    clean: Tensor
    corrupted: Tensor


class Restorer:
    """Restores images, and computes their energies and features, by the conventions of mmpretrain's inferencers.

        restorer = Restorer('work_dirs/demo/epoch_7.pth')
        for result in restorer.energy('my_photos'):
            print(result.source, result.energy)

    Results come one by one, in the order of the images, so that a folder of any size never lies in memory. Images are
    loaded, resized and cropped as the config's test pipeline says. A file that cannot be read is skipped, named in the
    log, and kept in ``skipped``.

    Polarity: higher energy = less like the training images.

    Args:
        model: Path of a config, name of one of mmebm's or mmpretrain's, or a config; a model; or the path of a
            checkpoint that names its config.
        checkpoint: The weights; None: those that the model has, of a config random ones.
        device: As ``cuda:1``; None: a GPU if there is one; of a model, where it is.
        batch_size: Images in a batch.

    Raises:
        FileNotFoundError: There is no such file or config.
        ValueError: The checkpoint is damaged, of another model, or does not say its config.

    Attributes:
        skipped: What is wrong with the files that the latest call could not read, by path.
        corruptions: Configs of the corruptions of the config's test pipelines, by name.
        provenance: What the model was trained on and by: see ``ProvenanceHook``; empty if the checkpoint does not say.
        polarity: Of the energy, in words.
    """

    polarity = POLARITY

    def __init__(
        self,
        model: str | Path | Config | nn.Module,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
    ) -> None:
        check_whole_numbers('Restorer', batch_size=batch_size)
        is_model = isinstance(model, nn.Module)
        loaded = load_model(model, checkpoint)
        self.model, self.config = loaded.model, loaded.config
        if device is not None or not is_model:
            self.model.to(device or get_device())
        self.model.eval()
        self.batch_size = batch_size
        self.provenance: dict[str, Any] = dict(loaded.meta.get(KEY) or {})
        self.corruptions: dict[str, dict] = held_out_corruptions(self.config)
        pipeline = evaluation_pipeline(self.config)
        self.scope = self.config.get('default_scope') or 'mmpretrain'
        self.prepare = Preparation(
            pipeline, image_size_of(self.config, self.model), self.scope, color_type_of(self.model)
        )
        swaps = getattr(self.model.data_preprocessor, '_channel_conversion', False)
        self._is_bgr = not swaps and not any(step.get('to_rgb') for step in pipeline)
        self.skipped: dict[str, str] = {}

    @property
    def abilities(self) -> list[str]:
        """Those of ``restore``, ``energy`` and ``features`` that the model has."""
        able = dict(
            restore=isinstance(self.model, BaseRestorer) and type(self.model.head).__name__ != 'RevDetHead',
            energy=isinstance(self.model, EBMAlgorithm),
            features=hasattr(self.model, 'extract_feat'),
        )
        return [name for name, is_able in able.items() if is_able]

    def restore(
        self, images: Any, corruption: Corruption | None = None, num_steps: int | None = None, progress: bool = True
    ) -> Iterator[RestoredImage]:
        """Restore images, and keep every step.

        ``PatchEBM`` and ``CIM`` corrupt images themselves; their energies are of the missing patches, or None.

        Args:
            images: Paths, folders, arrays, PIL images or tensors: see ``mmebm.apis.sources.expand``.
            corruption: Applied before, the same in every call: a name in ``corruptions``, or of a transform, as
                ``denoise`` or ``GaussianNoise``; the config of a transform, or of a chain; or one of ``CorruptedPair``,
                for its ``strength``. None: the images are restored as given.
            num_steps: K; None: as in training.
            progress: Whether to show a bar if there are several batches.

        Raises:
            TypeError: The model restores no images.
            ValueError: It corrupts them itself, or ``num_steps`` is less than 1.
        """
        self._require('restore')
        if num_steps is not None:
            check_whole_numbers('Restorer', num_steps=num_steps)
        if not isinstance(self.model, EBMAlgorithm):
            name = type(self.model).__name__
            if corruption is not None:
                raise ValueError(f'{name} corrupts images itself: leave out corruption')
            if num_steps not in (None, 1):
                raise ValueError(f'{name} restores in one step: leave out num_steps')
            return self._run(images, None, self._restored_at_once, progress)
        pair = None if corruption is None else make_pair(corruption, self.corruptions, self.scope)
        steps = num_steps or self.model.num_steps
        return self._run(images, pair, lambda batch: self._restored(batch, steps), progress)

    def energy(self, images: Any, maps: bool = True, progress: bool = True) -> Iterator[ImageEnergy]:
        """Energies of images; higher = less like the training images.

        Args:
            images: As in ``restore``.
            maps: Whether to compute |dE/dx| too, which takes a backward pass; and to keep the image.
            progress: As in ``restore``.

        Raises:
            TypeError: The model has no energy of whole images.
        """
        self._require('energy')
        return self._run(images, None, lambda batch: self._energies(batch, maps), progress)

    def energy_of_results(self, images: Tensor) -> list[ImageEnergy]:
        """Energies and maps of images that a call has returned, as those of a descent: neither resized nor cropped.

        Args:
            images: (N, C, H, W), in pixel units; three channels are RGB.

        Raises:
            TypeError: The model has no energy of whole images.
        """
        self._require('energy')
        pixels = images.flip(1) if self._is_bgr and images.shape[1] == 3 else images
        normalized = self.model.from_pixels(pixels.to(self.model.step_size.device))
        names = [f'image {i}' for i in range(len(images))]
        with torch.no_grad():
            return list(self._energies(Batch(names, normalized, normalized), maps=True))

    def features(
        self, images: Any, layer: int | str | None = None, pooled: bool = True, progress: bool = True
    ) -> Iterator[ImageFeatures]:
        """Features of whole images by the backbone, without masks.

        Args:
            images: As in ``restore``.
            layer: A block of the backbone, by its number, from the end if negative; or one of its modules, by name, as
                ``layers.2``. None: the last features, as for kNN and linear probes.
            pooled: Whether to average over positions, without class and other extra tokens.
            progress: As in ``restore``.

        Raises:
            TypeError: The model has no ``extract_feat``.
            ValueError: There is no such layer.
        """
        self._require('features')
        read = features_of(self.model, layer, pooled)
        return self._run(
            images, None, lambda batch: map(ImageFeatures, batch.names, _rows(read(batch.clean))), progress
        )

    def _require(self, ability: str) -> None:
        if ability in self.abilities:
            return
        lacks = dict(
            restore='restores no images', energy='has no energy of whole images', features='has no extract_feat'
        )[ability]
        able = ' and '.join(f'Restorer.{name}' for name in self.abilities)
        raise TypeError(f'{type(self.model).__name__} {lacks}; ' + (f'it has {able}' if able else 'nor anything else'))

    def _run(
        self, images: Any, pair: CorruptedPair | None, compute: Callable[[Batch], Iterable[T]], progress: bool
    ) -> Iterator[T]:
        items, number = expand(images)  # now, not at the first result: what is wrong is said by the call
        return self._results(items, number, pair, compute, progress)

    def _results(
        self,
        items: Iterable[Item],
        number: int | None,
        pair: CorruptedPair | None,
        compute: Callable[[Batch], Iterable[T]],
        progress: bool,
    ) -> Iterator[T]:
        self.skipped = {}
        console = Console(stderr=True)
        is_short = number is not None and number <= self.batch_size
        bar = dict(
            description='images',
            total=None if number is None else math.ceil(number / self.batch_size),
            console=console,
            transient=True,
            disable=is_short or not progress or not console.is_terminal,
        )
        num_results = 0
        for batch in track(self._batches(items, pair), **bar):
            with torch.no_grad():
                results = compute(batch)
            for result in results:
                num_results += 1
                yield result
        if self.skipped and not num_results:
            raise BrokenImageError(f'no image could be read: {first_few(self.skipped.values())}')

    def _batches(self, items: Iterable[Item], pair: CorruptedPair | None) -> Iterator[Batch]:
        """Successive images of one size."""
        group: list[Prepared] = []
        for one in prepared(items, self.prepare, ahead=2 * self.batch_size):
            if one.image is None:
                self.skipped[one.name] = one.fault
                MMLogger.get_current_instance().warning(f'Skipped a broken image: {one.fault}')
                continue
            if group and (len(group) == self.batch_size or not _alike(one.image, group[0].image)):
                yield self._batch(group, pair)
                group = []
            group.append(one)
        if group:
            yield self._batch(group, pair)

    def _batch(self, group: Sequence[Prepared], pair: CorruptedPair | None) -> Batch:
        names = [one.name for one in group]
        clean = self._normalized([one.image for one in group])
        if pair is None:
            return Batch(names, clean, clean)
        return Batch(names, clean, self._normalized([corrupted(one, pair) for one in group]))

    def _normalized(self, images: Sequence[NDArray]) -> Tensor:
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        data = self.model.data_preprocessor(dict(inputs=stacked, data_samples=None), False)['inputs']
        return data if isinstance(data, Tensor) else data[0]

    def _restored(self, batch: Batch, num_steps: int) -> Iterable[RestoredImage]:
        model = self.model
        images, energies = restore(model.energy, batch.corrupted, model.step_size.detach(), num_steps)
        all_energies = torch.stack([*energies, model.energy(images[-1])], dim=1)
        steps = self._pixels(torch.stack(images, dim=1))
        clean = [None] * len(batch.names) if batch.clean is batch.corrupted else self._pixels(batch.clean)
        return map(RestoredImage, batch.names, steps, _rows(all_energies), clean)

    def _restored_at_once(self, batch: Batch) -> Iterable[RestoredImage]:
        for name, sample in zip(batch.names, self.model.predict(batch.clean), strict=True):
            images = torch.stack([sample.corrupted, sample.restored])
            energies = sample.get('energies')
            yield RestoredImage(name, self._rgb(images), energies if energies is None else energies.cpu(),
                                self._rgb(sample.clean))  # fmt: skip

    def _energies(self, batch: Batch, maps: bool) -> Iterable[ImageEnergy]:
        model, images = self.model, batch.clean
        none = [None] * len(images)
        if maps:
            parts, gradient = energy_gradient(model.energy_parts, images, create_graph=False)
            gradients, pixels = _rows(gradient.norm(dim=1)), self._pixels(images)
        else:
            parts, gradients, pixels = model.energy_parts(images), none, none
        of_tokens = token_map(parts, images.shape[-2:])
        tokens = none if of_tokens is None else _rows(of_tokens)
        return map(ImageEnergy, batch.names, of_images(parts).tolist(), tokens, gradients, pixels)

    def _pixels(self, images: Tensor) -> list[Tensor]:
        return _rows(self._rgb(self.model.to_pixels(images)))

    def _rgb(self, images: Tensor) -> Tensor:
        return (images.flip(-3) if self._is_bgr and images.shape[-3] == 3 else images).cpu()


def _rows(batch: Tensor) -> list[Tensor]:
    """A copy of each row: a view would keep the memory of its whole batch, and be saved with it."""
    return [row.clone() for row in batch.cpu()]


def _alike(image: NDArray, other: NDArray | None) -> bool:
    return other is not None and image.shape == other.shape and image.dtype == other.dtype
