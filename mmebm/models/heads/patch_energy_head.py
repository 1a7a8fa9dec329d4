"""Energy of masked contents and dropped positions, given the visible patches."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmebm.checkpoint import loads_weights
from mmebm.models.patch_codec import PatchCodec, PatchSplit
from mmebm.models.patches import gather_patches, half_squared_distance
from mmebm.option_check import check_not_negative
from mmebm.registry import MODELS


@MODELS.register_module()
class PatchEnergyHead(BaseModule):
    """Energy of the contents x of masked patches and of the positions p of position-dropped ones.

        E(x, p) = |x - A g|^2 / 2 + |p - B g|^2 / 2 + |v - A g|^2 / 2

    g(x, p, f) are the tokens of a narrow transformer over the backbone's features f and the missing values x and p.
    Each term reads the tokens of its own patches; v are the contents of visible patches, A and B linear maps. One
    gradient step of size 1 from x = p = 0 restores both. ``PatchCodec`` defines contents and positions. MP3 (arXiv
    2207.07611) and DropPos (arXiv 2309.03576) showed that predicting positions helps; they classify them.

    The backbone reads natural patches only: it processes no mask tokens, and only this transformer is differentiated
    twice.

    Args:
        in_channels: Width of the backbone's last features.
        grid_size: Rows and columns of the grid of patches.
        patch_size: Side p of a patch in pixels.
        image_channels: Channels C of the image.
        embed_dims: Width D of the transformer, a multiple of 4 and of ``num_heads``.
        num_layers: Depth of the transformer.
        num_heads: Attention heads of the transformer.
        statistics_weight: Weight of the loss of statistics, relative to that of patterns.
        position_weight: Weight of the loss of positions, relative to that of patterns.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: A weight is negative.
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
        position_weight: float = 0.3,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        check_not_negative('PatchEnergyHead', statistics_weight=statistics_weight, position_weight=position_weight)
        self.codec = PatchCodec(grid_size, patch_size, image_channels, embed_dims)
        self.statistics_weight = statistics_weight
        self.position_weight = position_weight
        self.read_visible = nn.Linear(in_channels, embed_dims)
        self.read_position_dropped = nn.Linear(in_channels, embed_dims)
        self.read_content = nn.Linear(self.codec.content_dims, embed_dims)  # its bias is the mask token
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, 4 * embed_dims) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.content = nn.Linear(embed_dims, self.codec.content_dims)
        self.position = nn.Linear(embed_dims, embed_dims)
        self.logit_scale = nn.Parameter(torch.zeros(1))  # logarithm of the scale; shape (1,), not ()

    def init_weights(self) -> None:
        """Xavier-uniform weights and zero biases, as in MAE's decoder; small last weights, so that the energy is flat.

        A head that loads weights (``init_cfg`` of type ``Pretrained``) keeps them.
        """
        super().init_weights()
        if loads_weights(self):
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for predictor in (self.content, self.position):
            nn.init.trunc_normal_(predictor.weight, std=0.02)

    def forward(self, feats: Tensor, missing: Tensor, contents: Tensor, split: PatchSplit) -> Tensor:
        """Energies (N,), in at least float32.

        Args:
            feats: The backbone's tokens (N, extra + V + P, in_channels) of visible and position-dropped patches.
            missing: Contents of masked and positions of position-dropped patches, (N, S), see ``PatchCodec``.
            contents: Contents (N, L, C p p + C + 1) of all patches; only those of visible patches are read.
            split: The visible, position-dropped and masked patches.
        """
        masked, positions = self.codec.unpack(missing, split)
        num_visible, num_dropped, num_masked = (indices.shape[1] for indices in split)
        num_extra = feats.shape[1] - num_visible - num_dropped
        visible = self.read_visible(feats[:, : num_extra + num_visible])
        tokens = torch.cat(
            [
                visible[:, :num_extra],
                visible[:, num_extra:] + self.codec.positions_of(split.visible),
                self.read_content(masked) + self.codec.positions_of(split.masked),
                self.read_position_dropped(feats[:, num_extra + num_visible :]) + positions,
            ],
            dim=1,
        )
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        placed, dropped = tokens[:, num_extra : num_extra + num_visible + num_masked], tokens[:, -num_dropped:]
        values = torch.cat([gather_patches(contents, split.visible), masked], dim=1)
        return half_squared_distance(values, self.content(placed)) + half_squared_distance(
            positions, self.position(dropped)
        )

    def loss(self, restored: Tensor, contents: Tensor, split: PatchSplit) -> dict[str, Tensor]:
        """Mean squared errors of patterns and statistics, cross-entropy of positions over the grid, and their accuracy.

        The closer the restored position is to a position of the grid, the higher is the probability of the latter.

        Args:
            restored: Contents of masked and positions of position-dropped patches, (N, S), see ``PatchCodec``.
            contents: True contents (N, L, C p p + C + 1) of all patches.
            split: The visible, position-dropped and masked patches.
        """
        codec = self.codec
        masked, positions = codec.unpack(restored, split)
        errors = (masked - gather_patches(contents, split.masked)).square()
        logits = (codec.similarity(positions, codec.positions.T) * self.logit_scale.exp()).flatten(0, 1)
        targets = split.position_dropped.flatten()
        return dict(
            loss_pattern=errors[..., : codec.pattern_dims].mean(),
            loss_statistics=self.statistics_weight * errors[..., codec.pattern_dims :].mean(),
            loss_position=self.position_weight * F.cross_entropy(logits, targets),
            position_accuracy=(logits.argmax(dim=1) == targets).float().mean(),
        )
