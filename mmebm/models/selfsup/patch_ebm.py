"""Energy-based pretraining of a ViT on patches: restore the contents of some, and the places of others."""

from functools import partial

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.energy import restoration_step
from mmebm.launch.checks.engines import check_model
from mmebm.models.heads.patch_energy_head import PatchSplit
from mmebm.models.selfsup.base import BaseRestorer, fill
from mmebm.registry import MODELS
from mmebm.training_step.step import Compiled


@MODELS.register_module()
class PatchEBM(BaseRestorer):
    """Pretrains a ViT by restoring what patches lack, down the gradient of an energy over it.

    Of each image's patches, drawn anew at each step, some are seen, some are lost, which is to say shown without their
    place, and all others are masked. The backbone reads the seen and the lost ones. Given its features, the head scores
    contents of the masked and places of the lost patches; one step down the gradient of that energy restores both.

    ``EBMAlgorithm`` restores whole images from any corruption, with any backbone. This one gives a ViT's features in
    less time: the backbone reads half of the patches, and is differentiated once.

    Args:
        backbone: Config of a ``PatchSubsetViT``.
        head: Config of a ``PatchEnergyHead``.
        seen: Part of the patches that is seen.
        lost: Part of the patches that is lost.
        views: How many draws of each image a step trains on. They complement one another: with the defaults, four views
            see each patch once, lose it once and mask it twice. The time of a step grows with them.
        compile: Whether to compile a training step, inner gradient included, as one graph; see ``EBMAlgorithm``.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: Backbone and head have different patches, ``seen`` or ``lost`` is not positive, or together they
            leave no patch to mask, or ``views`` is less than 1.
    """

    num_inputs = 1

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        seen: float = 0.25,
        lost: float = 0.25,
        views: int = 1,
        compile: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(backbone, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self._check_grid()
        num_patches = len(self.head.places)
        self.num_seen, self.num_lost = round(seen * num_patches), round(lost * num_patches)
        if not (self.num_seen > 0 and self.num_lost > 0 and self.num_seen + self.num_lost < num_patches):
            raise ValueError(
                f'PatchEBM: seen={seen} and lost={lost} must each take one of {num_patches} patches or more, and leave '
                'one to mask'
            )
        if views < 1:
            raise ValueError(f'PatchEBM: views must be at least 1, not {views}')
        self.views = views
        self.step = Compiled(self._step, self) if compile else self._step

    def _check_grid(self) -> None:
        embedding = self.backbone.patch_embed
        grid, size = tuple(embedding.init_out_size), embedding.projection.stride
        if grid != self.head.grid_size or size != (self.head.patch_size,) * 2:
            raise ValueError(
                f'PatchEBM: the backbone has {grid[0]} x {grid[1]} patches of {size[0]} x {size[1]} pixels, but '
                f'head.grid_size is {self.head.grid_size} and head.patch_size {self.head.patch_size}; they must agree'
            )

    def draw(self, num_images: int, views: int = 1, generator: torch.Generator | None = None) -> PatchSplit:
        """Draw which patches of so many images are seen, lost and masked.

        Args:
            num_images: N.
            views: V, how often each image occurs: rows n, N + n, 2 N + n, ... are those of image n.
            generator: For random numbers; torch's own one if None.

        Returns:
            Indices of V N rows. From view to view, an image's random order of patches is rolled by L / V.
        """
        places = self.head.places
        order = torch.rand(num_images, len(places), device=places.device, generator=generator).argsort(dim=1)
        order = torch.cat([order.roll(-view * len(places) // views, dims=1) for view in range(views)])
        num_shown = self.num_seen + self.num_lost
        return PatchSplit(order[:, : self.num_seen], order[:, self.num_seen : num_shown], order[:, num_shown:])

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Losses of patterns, statistics and places, for a list of one batch of normalised images (N, C, H, W)."""
        images = self._images(inputs)
        if self._is_first_batch:
            check_model(self)
            self._is_first_batch = False
        draw = self.draw(len(images), self.views)
        # Made here: what is differentiated has to be an input of what is compiled.
        return self.step(self.head.start(draw).requires_grad_(), images, draw)

    def _step(self, start: Tensor, images: Tensor, draw: PatchSplit) -> dict[str, Tensor]:
        contents = self.head.contents(images).repeat(self.views, 1, 1)
        energy_fn = self._energy_fn(images.repeat(self.views, 1, 1, 1), contents, draw)
        restored, _ = restoration_step(energy_fn, start, 1.0, create_graph=True)
        return self.head.loss(restored, contents, draw)

    def _energy_fn(self, images: Tensor, contents: Tensor, draw: PatchSplit):
        features = self.backbone(images, draw.seen, draw.lost)
        return partial(self.head, features=features, contents=contents, draw=draw)

    def _images(self, inputs: Tensor | list[Tensor]) -> Tensor:
        """Check that inputs are one batch of images that the head's grid covers.

        Raises:
            ValueError: They are several views, or of another size.
        """
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        size = tuple(self.head.patch_size * patches for patches in self.head.grid_size)
        if not isinstance(inputs, Tensor) and len(inputs) != 1 or tuple(images.shape[-2:]) != size:
            views = 1 if isinstance(inputs, Tensor) else len(inputs)
            raise ValueError(
                f'PatchEBM needs one view of {size[0]} x {size[1]} pixels (grid_size times patch_size), not {views} of '
                f'{images.shape[-2]} x {images.shape[-1]}; it corrupts images itself and takes no CorruptedPair'
            )
        return images

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Features of whole images (N, C, H, W), as the backbone gives them."""
        return self.backbone(self._images(inputs))

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Corrupt images, restore them and score them.

        Args:
            inputs: Normalised images (N, C, H, W), or a list of them alone.
            data_samples: N samples to fill, or none.

        Returns:
            N data samples with ``energies`` (2,), of flat patches without a place and of what was restored, and
            ``clean_energy``, of the true contents and places; and in pixel units, 0 to 255, each (C, H, W), ``clean``,
            ``corrupted``, where masked patches have the mean colour of all images and lost ones one another's places,
            and ``restored``, where lost patches are assigned to the places nearest to the restored ones.
        """
        images = self._images(inputs)
        # Every batch alike, so that two evaluations compare and training is not disturbed.
        draw = self.draw(len(images), generator=torch.Generator(images.device).manual_seed(0))
        contents = self.head.contents(images)
        start = self.head.start(draw)
        energy_fn = self._energy_fn(images, contents, draw)
        restored, energy = restoration_step(energy_fn, start, 1.0, create_graph=False)
        masked, places = self.head.split(restored, draw)
        pictures = dict(
            corrupted=self.head.compose(images, draw, torch.zeros_like(masked), draw.lost.roll(1, dims=1)),
            restored=self.head.compose(images, draw, masked, self.head.assign(places, draw)),
            clean=images,
        )
        fields = {name: self.to_pixels(picture) for name, picture in pictures.items()}
        fields |= dict(
            energies=torch.stack([energy, energy_fn(restored)], dim=1),
            clean_energy=energy_fn(self.head.truth(contents, draw)),
        )
        return fill(data_samples, fields)
