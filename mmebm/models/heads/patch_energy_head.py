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

from mmebm.checkpoint import loads_weights
from mmebm.models.patches import gather_patches, half_squared_distance, patchify
from mmebm.registry import MODELS

# Added to the variance of a patch: a deviation of 0.03, two of 255 grey levels, is as good as flat.
FLAT = 1e-3


class PatchSplit(NamedTuple):
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

    Contents of a patch are its pattern, which is to say its pixels without their mean, divided by their deviation, as
    MAE's targets (arXiv 2111.06377); and its statistics, the mean of each channel and the logarithm of the deviation.
    x = 0 is a flat patch of the images' mean colour. Places are sines and cosines of both coordinates. That places are
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
        statistics_weight: Weight of the loss of statistics beside that of patterns.
        place_weight: Weight of the loss of places beside that of patterns.
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
        statistics_weight: float = 0.3,
        place_weight: float = 0.3,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.grid_size = tuple(grid_size)
        self.patch_size = patch_size
        self.image_channels = image_channels
        self.pattern_dims = image_channels * patch_size**2
        self.content_dims = self.pattern_dims + image_channels + 1
        self.statistics_weight = statistics_weight
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
        self.logit_scale = nn.Parameter(torch.zeros(1))  # of the distribution over places; one element, not none
        # The function lists positions column by column, and patches lie row by row.
        places = build_2d_sincos_position_embedding(self.grid_size[::-1], embed_dims)[0]
        self.register_buffer('places', places, persistent=False)  # (L, D)

    def init_weights(self) -> None:
        """Xavier-uniform weights and no biases, as MAE's decoder, but the last ones small: the energy begins flat.

        A head that loads weights (``init_cfg`` of type ``Pretrained``) keeps them.
        """
        super().init_weights()
        if loads_weights(self):
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for predictor in (self.content, self.place):
            nn.init.trunc_normal_(predictor.weight, std=0.02)

    def contents(self, images: Tensor) -> Tensor:
        """Contents (N, L, C p p + C + 1) of the patches of images (N, C, H, W): pattern, colour, log deviation."""
        patches = patchify(images, self.patch_size)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        deviation = (variance + FLAT).sqrt()
        color = self._by_channel(patches).mean(dim=-1)
        return torch.cat([(patches - mean) / deviation, color, deviation.log()], dim=-1)

    def _pixels(self, contents: Tensor) -> Tensor:
        """Patches (N, R, C p p) of such contents; the colour of the pattern is not read."""
        pattern, color, log_deviation = contents.split([self.pattern_dims, self.image_channels, 1], dim=-1)
        values = self._by_channel(log_deviation.exp() * pattern)
        return (values - values.mean(dim=-1, keepdim=True) + color.unsqueeze(-1)).flatten(2)

    def _by_channel(self, patches: Tensor) -> Tensor:
        return patches.reshape(*patches.shape[:2], self.image_channels, -1)

    def compose(self, images: Tensor, draw: PatchSplit, contents: Tensor, cells: Tensor) -> Tensor:
        """Images (N, C, H, W) with other contents in masked patches, and lost ones in other cells of the grid.

        Args:
            images: (N, C, H, W).
            draw: Which patches are which.
            contents: (N, R, C p p + C + 1), of the masked ones.
            cells: Indices (N, M) of where the lost ones go, the same cells in another order.
        """
        patches = patchify(images, self.patch_size)
        changed = torch.cat([self._pixels(contents), gather_patches(patches, draw.lost)], dim=1)
        where = torch.cat([draw.masked, cells], dim=1).unsqueeze(-1).expand_as(changed)
        patches = patches.scatter(1, where, changed)
        return F.fold(patches.transpose(1, 2), images.shape[-2:], self.patch_size, stride=self.patch_size)

    def assign(self, places: Tensor, draw: PatchSplit) -> Tensor:
        """Indices (N, M): a cell for each lost patch, each taken once, such that places (N, M, D) are nearest."""
        lost = gather_patches(self.places.expand(len(places), -1, -1), draw.lost)
        products = _products(places, lost.transpose(1, 2))  # (N, M, M)
        columns = [linear_sum_assignment(one, maximize=True)[1] for one in products.cpu().numpy()]
        return draw.lost.gather(1, torch.as_tensor(np.stack(columns), device=draw.lost.device))

    def truth(self, contents: Tensor, draw: PatchSplit) -> Tensor:
        """The true contents of masked and places of lost patches, one row an image, given all contents."""
        places = gather_patches(self.places.expand(len(contents), -1, -1), draw.lost)
        return torch.cat([gather_patches(contents, draw.masked).flatten(1), places.flatten(1)], dim=1)

    def start(self, draw: PatchSplit) -> Tensor:
        """What restoration starts from: flat patches and no places, 0 of shape (N, R (C p p + C + 1) + M D)."""
        num_values = draw.masked.shape[1] * self.content_dims + draw.lost.shape[1] * self.places.shape[1]
        return self.places.new_zeros(len(draw.masked), num_values)

    def split(self, missing: Tensor, draw: PatchSplit) -> tuple[Tensor, Tensor]:
        """Contents (N, R, C p p + C + 1) and places (N, M, D) in ``missing``, see ``start``."""
        num_contents = draw.masked.shape[1] * self.content_dims
        # Not unflatten, which the compiler cannot trace here.
        contents = missing[:, :num_contents].reshape(len(missing), -1, self.content_dims)
        return contents, missing[:, num_contents:].reshape(len(missing), -1, self.places.shape[1])

    def forward(self, missing: Tensor, features: Tensor, contents: Tensor, draw: PatchSplit) -> Tensor:
        """Energies (N,), in at least float32.

        Args:
            missing: Contents of masked and places of lost patches, see ``start``.
            features: The backbone's tokens (N, extra + K + M, C) of seen and lost patches.
            contents: Contents (N, L, C p p + C + 1) of all patches; those of the seen ones are read.
            draw: Which patches are which.
        """
        masked, places = self.split(missing, draw)
        num_seen, num_lost, num_masked = (indices.shape[1] for indices in draw)
        num_extra = features.shape[1] - num_seen - num_lost
        grid = self.places.expand(len(missing), -1, -1)
        seen = self.read_seen(features[:, : num_extra + num_seen])
        tokens = torch.cat(
            [
                seen[:, :num_extra],
                seen[:, num_extra:] + gather_patches(grid, draw.seen),
                self.read_content(masked) + gather_patches(grid, draw.masked),
                self.read_lost(features[:, num_extra + num_seen :]) + places,
            ],
            dim=1,
        )
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        shown, lost = tokens[:, num_extra : num_extra + num_seen + num_masked], tokens[:, -num_lost:]
        values = torch.cat([gather_patches(contents, draw.seen), masked], dim=1)
        return half_squared_distance(values, self.content(shown)) + half_squared_distance(places, self.place(lost))

    def loss(self, restored: Tensor, contents: Tensor, draw: PatchSplit) -> dict[str, Tensor]:
        """Mean squared errors of patterns and of statistics, and cross-entropy of places over the grid.

        A place has the higher a probability the nearer the restored one is to it.

        Args:
            restored: Contents of masked and places of lost patches, see ``start``.
            contents: True contents (N, L, C p p + C + 1) of all patches.
            draw: Which patches are which.
        """
        masked, places = self.split(restored, draw)
        errors = (masked - gather_patches(contents, draw.masked)).square()
        # All places are equally long, so the nearest one has the largest product.
        logits = (_products(places, self.places.T) * self.logit_scale.exp()).flatten(0, 1)
        targets = draw.lost.flatten()
        return dict(
            loss_pattern=errors[..., : self.pattern_dims].mean(),
            loss_statistics=self.statistics_weight * errors[..., self.pattern_dims :].mean(),
            loss_place=self.place_weight * F.cross_entropy(logits, targets),
            place_accuracy=(logits.argmax(dim=1) == targets).float().mean(),
        )


def _products(places: Tensor, grid: Tensor) -> Tensor:
    """Products in the grid's precision even under autocast: half precision does not tell neighbours apart."""
    with torch.autocast(places.device.type, enabled=False):
        return places.to(grid.dtype) @ grid
