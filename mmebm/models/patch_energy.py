"""The energy of what an image's patches lack, given those that were seen."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmebm.registry import MODELS

from .patch_subset_vit import take


class PatchDraw(NamedTuple):
    """What becomes of the L patches of each image: indices, row by row.

    Attributes:
        seen: (N, K), shown as they are.
        lost: (N, M), shown without their place.
        masked: (N, R), not shown.
    """

    seen: Tensor
    lost: Tensor
    masked: Tensor


@MODELS.register_module()
class PatchEnergyHead(BaseModule):
    """Energy of the missing contents x of masked patches and of the missing places p of lost ones.

        E(x, p) = |x - P g|^2 / 2 + |p - Q g|^2 / 2 + |s - P g|^2 / 2

    g(x, p, f) are the tokens of a narrow transformer over the backbone's features f and what is missing. Each term
    reads the tokens of its own patches; s are the contents of the seen ones. A step of size 1 down the gradient from
    x = p = 0 restores both.

    Contents are patterns: a patch's pixels without their mean, divided by their deviation, as MAE's targets
    (arXiv 2111.06377), so that x = 0 is a flat patch. Places are sines and cosines of both coordinates. That places are
    worth finding was shown by MP3 (arXiv 2207.07611) and DropPos (arXiv 2309.03576), which classify them.

    Missing values enter here, and the backbone reads natural patches alone: no feature serves a mask token, and only
    this transformer is differentiated twice.

    Args:
        in_channels: C of the backbone's last features.
        grid_size: Patches of an image in a column and in a row.
        patch_size: Side of a patch in pixels.
        image_channels: Channels of the image.
        embed_dims: Width of the transformer, a multiple of 4 and of ``num_heads``.
        num_layers: Its depth.
        num_heads: Its attention heads.
        place_weight: Weight of the loss of places beside that of contents.
        init_cfg: As in mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        grid_size: tuple[int, int],
        patch_size: int,
        image_channels: int = 3,
        embed_dims: int = 96,
        num_layers: int = 1,
        num_heads: int = 3,
        place_weight: float = 0.3,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.grid_size = tuple(grid_size)
        self.patch_size = patch_size
        self.content_dims = image_channels * patch_size**2
        self.place_weight = place_weight
        self.read_seen = nn.Linear(in_channels, embed_dims)
        self.read_lost = nn.Linear(in_channels, embed_dims)
        self.read_content = nn.Linear(self.content_dims, embed_dims)  # its bias is the mask token
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, 4 * embed_dims) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.content = nn.Linear(embed_dims, self.content_dims)
        self.place = nn.Linear(embed_dims, embed_dims)
        self.log_sharpness = nn.Parameter(torch.zeros(1))  # of the distribution over places; one element, not none
        # The function lists positions column by column, and patches lie row by row.
        places = build_2d_sincos_position_embedding(self.grid_size[::-1], embed_dims)[0]
        self.register_buffer('places', places, persistent=False)  # (L, D)

    def init_weights(self) -> None:
        """Xavier-uniform weights and no biases, as MAE's decoder, but the last ones small: the energy begins flat."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for predictor in (self.content, self.place):
            nn.init.trunc_normal_(predictor.weight, std=0.02)

    def patterns(self, images: Tensor) -> Tensor:
        """Contents (N, L, C p p) of the patches of images (N, C, H, W): mean 0, deviation 1."""
        patches = self._patches(images)
        mean, deviation = mean_and_deviation(patches)
        return (patches - mean) / deviation

    def _patches(self, images: Tensor) -> Tensor:
        return F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)  # (N, L, C p p)

    def compose(self, images: Tensor, draw: PatchDraw, contents: Tensor, cells: Tensor) -> Tensor:
        """Images (N, C, H, W) with other contents in masked patches, and lost ones in other cells of the grid.

        Args:
            images: (N, C, H, W); masked patches keep their mean and deviation.
            draw: Which patches are which.
            contents: (N, R, C p p), of the masked ones.
            cells: Indices (N, M) of where the lost ones go, the same cells in another order.
        """
        patches = self._patches(images)
        mean, deviation = mean_and_deviation(take(patches, draw.masked))
        changed = torch.cat([mean + deviation * contents, take(patches, draw.lost)], dim=1)
        where = torch.cat([draw.masked, cells], dim=1).unsqueeze(-1).expand_as(changed)
        patches = patches.scatter(1, where, changed)
        return F.fold(patches.transpose(1, 2), images.shape[-2:], self.patch_size, stride=self.patch_size)

    def assign(self, places: Tensor, draw: PatchDraw) -> Tensor:
        """Indices (N, M): a cell for each lost patch, each taken once, such that places (N, M, D) are nearest."""
        products = places @ take(self.places.expand(len(places), -1, -1), draw.lost).transpose(1, 2)  # (N, M, M)
        columns = [linear_sum_assignment(one, maximize=True)[1] for one in products.float().cpu().numpy()]
        return draw.lost.gather(1, torch.as_tensor(np.stack(columns), device=draw.lost.device))

    def truth(self, patterns: Tensor, draw: PatchDraw) -> Tensor:
        """The true contents and places (N, R C p p + M D)."""
        places = take(self.places.expand(len(patterns), -1, -1), draw.lost)
        return torch.cat([take(patterns, draw.masked).flatten(1), places.flatten(1)], dim=1)

    def start(self, draw: PatchDraw) -> Tensor:
        """What restoration starts from: flat patches and no places, 0 of shape (N, R C p p + M D)."""
        num_values = draw.masked.shape[1] * self.content_dims + draw.lost.shape[1] * self.places.shape[1]
        return self.places.new_zeros(len(draw.masked), num_values)

    def split(self, missing: Tensor, draw: PatchDraw) -> tuple[Tensor, Tensor]:
        """Contents (N, R, C p p) and places (N, M, D) in ``missing`` (N, R C p p + M D)."""
        num_contents = draw.masked.shape[1] * self.content_dims
        # Not unflatten, which the compiler cannot trace here.
        contents = missing[:, :num_contents].reshape(len(missing), -1, self.content_dims)
        return contents, missing[:, num_contents:].reshape(len(missing), -1, self.places.shape[1])

    def forward(self, missing: Tensor, features: Tensor, patterns: Tensor, draw: PatchDraw) -> Tensor:
        """Energies (N,), in at least float32.

        Args:
            missing: Contents and places (N, R C p p + M D), see ``start``.
            features: The backbone's tokens (N, extra + K + M, C) of seen and lost patches.
            patterns: Contents (N, L, C p p) of all patches; those of the seen ones are read.
            draw: Which patches are which.
        """
        contents, places = self.split(missing, draw)
        num_seen, num_lost, num_masked = (indices.shape[1] for indices in draw)
        num_extra = features.shape[1] - num_seen - num_lost
        grid = self.places.expand(len(missing), -1, -1)
        seen = self.read_seen(features[:, : num_extra + num_seen])
        tokens = torch.cat(
            [
                seen[:, :num_extra],
                seen[:, num_extra:] + take(grid, draw.seen),
                self.read_content(contents) + take(grid, draw.masked),
                self.read_lost(features[:, num_extra + num_seen :]) + places,
            ],
            dim=1,
        )
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        shown, lost = tokens[:, num_extra : num_extra + num_seen + num_masked], tokens[:, -num_lost:]
        known = torch.cat([take(patterns, draw.seen), contents], dim=1)
        return half_squared_distance(known, self.content(shown)) + half_squared_distance(places, self.place(lost))

    def loss(self, restored: Tensor, patterns: Tensor, draw: PatchDraw) -> dict[str, Tensor]:
        """Mean squared error of contents, and cross-entropy of places over the grid.

        A place has the higher a probability the nearer the restored one is to it.

        Args:
            restored: Contents and places (N, R C p p + M D).
            patterns: True contents (N, L, C p p) of all patches.
            draw: Which patches are which.
        """
        contents, places = self.split(restored, draw)
        # All places are equally long, so the nearest one has the largest product.
        logits = ((places @ self.places.T) * self.log_sharpness.exp()).flatten(0, 1)
        targets = draw.lost.flatten()
        return dict(
            loss_content=F.mse_loss(contents, take(patterns, draw.masked)),
            loss_place=self.place_weight * F.cross_entropy(logits, targets),
            place_accuracy=(logits.argmax(dim=1) == targets).float().mean(),
        )


def mean_and_deviation(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Of each patch's values, each (N, L, 1), of patches (N, L, C p p)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def half_squared_distance(values: Tensor, predicted: Tensor) -> Tensor:
    """|values - predicted|^2 / 2 of each image, (N,), summed in at least float32."""
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    return (values - predicted).square().sum(dim=(1, 2)) / 2
