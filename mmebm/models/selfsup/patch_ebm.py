"""Energy-based pretraining of a ViT on patches: restore masked contents and dropped positions."""

from typing import NamedTuple

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.energy import EnergyFn, restoration_step
from mmebm.models.patch_codec import PatchSplit
from mmebm.models.selfsup.base import BaseRestorer, fill
from mmebm.models.selfsup.checks import check_engine, check_reached
from mmebm.option_check import check_whole_numbers
from mmebm.registry import MODELS
from mmebm.training_step import TrainingStep


class SplitImages(NamedTuple):
    """A batch, or a part of one.

    Attributes:
        images: (N, C, H, W).
        split: Their visible, position-dropped and masked patches.
    """

    images: Tensor
    split: PatchSplit


@MODELS.register_module()
class PatchEBM(BaseRestorer):
    """Pretrains a ViT by restoring contents of masked patches and positions of position-dropped ones.

    Each step splits the patches of every image at random into visible, position-dropped and masked ones. The backbone
    reads the visible patches with and the position-dropped ones without position embedding. Given its features, the
    head computes the energy of masked contents and dropped positions; one gradient step on it restores both.

    ``EBMAlgorithm`` restores whole images from any corruption with any backbone, and its whole network is
    differentiated twice. Here only the head is, a light decoder that is dropped after pretraining: the backbone reads
    half of the patches and is differentiated once.

    Args:
        backbone: Config of a ``PatchSubsetViT``.
        head: Config of a ``PatchEnergyHead``.
        visible_ratio: Share V / L of visible patches.
        position_drop_ratio: Share P / L of position-dropped patches; the others are masked.
        views: Splits of each image per step. They are complementary: over four views at the default ratios, a patch is
            once visible, once position-dropped and twice masked. The time of a step is proportional to ``views``.
        training_step: How a step is computed, with the same gradients: options of ``mmebm.training_step.TrainingStep``,
            such as ``dict(compile=True, micro_batch=64)``.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: Backbone and head have different patches, a ratio leaves no patch visible, position-dropped or
            masked, or ``views`` is less than 1.
    """

    num_inputs = 1
    differentiates_twice = True

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        visible_ratio: float = 0.25,
        position_drop_ratio: float = 0.25,
        views: int = 1,
        training_step: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(backbone, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self._check_grid()
        num_patches = len(self.head.codec.positions)
        self.num_visible = round(visible_ratio * num_patches)
        self.num_dropped = round(position_drop_ratio * num_patches)
        if not (self.num_visible > 0 and self.num_dropped > 0 and self.num_visible + self.num_dropped < num_patches):
            raise ValueError(
                f'PatchEBM: visible_ratio={visible_ratio} and position_drop_ratio={position_drop_ratio} must each take '
                f'one of {num_patches} patches or more, and leave one to mask'
            )
        check_whole_numbers('PatchEBM', views=views)
        self.views = views
        self.training_step = TrainingStep(self, self._step, **(training_step or {}))

    def _check_grid(self) -> None:
        embedding, codec = self.backbone.patch_embed, self.head.codec
        grid, size = tuple(embedding.init_out_size), embedding.projection.stride
        if grid != codec.grid_size or size != (codec.patch_size,) * 2:
            raise ValueError(
                f'PatchEBM: the backbone has {grid[0]} x {grid[1]} patches of {size[0]} x {size[1]} pixels, but '
                f'head.grid_size is {codec.grid_size} and head.patch_size {codec.patch_size}; they must agree'
            )

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Losses of patterns, statistics and positions, for a list of one batch of normalised images (N, C, H, W)."""
        images = self._images(inputs)
        batch = SplitImages(images.repeat(self.views, 1, 1, 1), self.draw(len(images), self.views))
        start = self.head.codec.start(batch.split)
        if self._is_first_batch:
            check_engine(self)
            self.training_step.check(_energy_of, start, batch)
        losses, _ = self.training_step(start, batch)
        if self._is_first_batch:
            check_reached(self, losses)
            self._is_first_batch = False
        return losses

    def _step(self, start: Tensor, batch: SplitImages) -> tuple[Tensor, dict[str, Tensor]]:
        """Restored values x - dE/dx, (N, S), and their losses; ``start`` is x, the missing values."""
        contents, gradient_fn = self._contents(batch), self.training_step.gradient_fn
        energy_fn = self._energy_fn(batch, contents)
        restored, _ = restoration_step(energy_fn, start, 1.0, create_graph=True, gradient_fn=gradient_fn)
        return restored, self.head.loss(restored, contents, batch.split)

    def _contents(self, batch: SplitImages) -> Tensor:
        return self.head.codec.contents(batch.images)

    def _energy_fn(self, batch: SplitImages, contents: Tensor) -> EnergyFn:
        images, split = batch
        with self.training_step.recomputing():
            features = self.backbone(images, split.visible, split.position_dropped)
        return lambda missing: self.head(features, missing, contents, split)

    def draw(self, num_images: int, views: int = 1, generator: torch.Generator | None = None) -> PatchSplit:
        """Split the patches of N images at random.

        Args:
            num_images: N.
            views: Splits per image: rows n, N + n, 2 N + n, ... are those of image n.
            generator: For random numbers; torch's default one if None.

        Returns:
            ``views * N`` rows of indices. From view to view, an image's random order is rolled by L / views.
        """
        positions = self.head.codec.positions
        num_patches = len(positions)
        order = torch.rand(num_images, num_patches, device=positions.device, generator=generator).argsort(dim=1)
        order = torch.cat([order.roll(-view * num_patches // views, dims=1) for view in range(views)])
        num_shown = self.num_visible + self.num_dropped
        return PatchSplit(order[:, : self.num_visible], order[:, self.num_visible : num_shown], order[:, num_shown:])

    def _images(self, inputs: Tensor | list[Tensor]) -> Tensor:
        """Check that inputs are one batch of images (N, C, H, W) of the size of the head's grid.

        Raises:
            ValueError: There are several views, or their size differs.
        """
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        size = tuple(self.head.codec.patch_size * patches for patches in self.head.codec.grid_size)
        if not isinstance(inputs, Tensor) and len(inputs) != 1 or tuple(images.shape[-2:]) != size:
            views = 1 if isinstance(inputs, Tensor) else len(inputs)
            raise ValueError(
                f'PatchEBM needs one view of {size[0]} x {size[1]} pixels (grid_size times patch_size), not {views} of '
                f'{images.shape[-2]} x {images.shape[-1]}; it drops and masks patches itself, without CorruptedPair'
            )
        return images

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's features of whole images (N, C, H, W)."""
        return self.backbone(self._images(inputs))

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Corrupt images, restore them and compute their energies.

        Args:
            inputs: Normalised images (N, C, H, W), or a list of that one batch.
            data_samples: N samples to fill, or none.

        Returns:
            N data samples with ``energies`` (2,), of flat patches without positions and of the restored values, and
            ``clean_energy``, of the true contents and positions; and in pixel units, 0 to 255, each (C, H, W):
            ``clean``; ``corrupted``, where masked patches have the mean color of all images and position-dropped ones
            are permuted; and ``restored``, where these are assigned to the positions of the grid that match the
            restored ones best.
        """
        images, codec = self._images(inputs), self.head.codec
        # The same for every batch: evaluations are comparable, and training's random state is untouched.
        split = self.draw(len(images), generator=torch.Generator(images.device).manual_seed(0))
        contents = codec.contents(images)
        energy_fn = self._energy_fn(SplitImages(images, split), contents)
        restored, energy = restoration_step(energy_fn, codec.start(split), 1.0, create_graph=False)
        masked, positions = codec.unpack(restored, split)
        exchanged = split.position_dropped.roll(1, dims=1)
        pictures = dict(
            corrupted=codec.compose(images, split, torch.zeros_like(masked), exchanged),
            restored=codec.compose(images, split, masked, codec.assign(positions, split)),
            clean=images,
        )
        fields = {name: self.to_pixels(picture) for name, picture in pictures.items()}
        fields |= dict(
            energies=torch.stack([energy, energy_fn(restored)], dim=1),
            clean_energy=energy_fn(codec.truth(contents, split)),
        )
        return fill(data_samples, fields)


def _energy_of(model: PatchEBM, batch: SplitImages) -> EnergyFn:
    return model._energy_fn(batch, model._contents(batch))
