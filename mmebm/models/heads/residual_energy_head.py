"""An energy that measures how far an image is from what its features say it is."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmebm.models.heads.energy_head import EnergyHead, as_tokens
from mmebm.models.patches import gather_patches, half_squared_distance, patchify
from mmebm.registry import MODELS

MOST_EXTRA_TOKENS = 8  # a class token, one of distillation, registers; a wrong patch size leaves more


@MODELS.register_module()
class ResidualEnergyHead(EnergyHead):
    """Half the squared distance between an image and a linear prediction of its pixels: E(x) = |x - P f(x)|^2 / 2.

    P maps each of the last features to the pixels of its own patch. A step of size 1 down the gradient goes to P f(x),
    but for the term in which the features themselves change with the image. Hurault, Leclaire and Papadakis (Gradient
    Step Denoiser, arXiv 2110.03220) found that a network whose energy has this form denoises as well as one that
    predicts the clean image directly.

    ``EBMAlgorithm`` needs ``step_size=1.0`` for it: ``auto`` begins with shorter steps.

    Args:
        in_channels: C of the last stage.
        patch_size: Pixels that one feature stands for, in each direction: a ViT's patch size, a CNN's total stride.
        image_channels: Channels of the image.
        loss: Config of the loss over the restored images; ``RestorationLoss()`` if not given.
        init_cfg: As in mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        patch_size: int,
        image_channels: int = 3,
        loss: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(in_channels, loss=loss, init_cfg=init_cfg)
        self.patch_size = patch_size
        self.energies = nn.ModuleList([nn.Linear(in_channels, image_channels * patch_size**2)])

    def forward(self, feats: Tensor | Sequence[Tensor], images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Energies (N,), in at least float32.

        Args:
            feats: As in ``EnergyHead``; the last stage is read. Tokens that stand for no patch come before the others.
            images: What the features are of, (N, C, H, W).
            kept: Indices (N, M) of the patches that the last M tokens stand for; None for all, row by row.

        Raises:
            ValueError: There are fewer or many more features than patches, the image is no whole number of patches, or
                features are of another width.
        """
        last = feats if isinstance(feats, Tensor) else feats[-1]
        tokens = as_tokens(last, self.in_channels[-1])
        if any(size % self.patch_size for size in images.shape[-2:]):
            raise ValueError(
                f'ResidualEnergyHead: images of {tuple(images.shape[-2:])} pixels are no whole number of patches of '
                f'{self.patch_size}; train at a multiple of it'
            )
        patches = patchify(images, self.patch_size)
        if kept is not None:
            patches = gather_patches(patches, kept)
        # A map has one feature a patch; a sequence may begin with class and register tokens.
        most_extra = MOST_EXTRA_TOKENS if last.dim() == 3 else 0
        if not 0 <= tokens.shape[1] - patches.shape[1] <= most_extra:
            raise ValueError(
                f'ResidualEnergyHead: the backbone returns {tokens.shape[1]} features for {patches.shape[1]} patches '
                f'of {self.patch_size} pixels: patch_size must be its total stride'
            )
        return half_squared_distance(patches, self.energies[0](tokens[:, -patches.shape[1] :]))
