"""A small image tokenizer for BEiT and CIM, where DALL-E's weights are not available."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmpretrain.models.utils import NormEMAVectorQuantizer
from torch import Tensor, nn

from mmebm.option_check import check_whole_numbers
from mmebm.registry import MODELS


@MODELS.register_module()
class VQVAE(BaseModel):
    """A discrete autoencoder: encodes each position of a grid as a token, and decodes the image from the tokens.

    A VQ-VAE (van den Oord et al., arXiv 1711.00937) whose codebook is initialised by k-means of the first batch and
    follows the encoder's features by moving averages, as in BEiT v2 (mmpretrain's ``NormEMAVectorQuantizer``). Most
    tokens fall out of use while the features change, so k-means is repeated. Processes do not share it: train in one.

    BEiT calls its ``target_generator`` without a mode, and so gets ``fit``.

    Args:
        num_embed: Size of the vocabulary.
        downsampling: Side d of a token in pixels, a power of two above 1.
        width: Channels of the convolutions.
        embed_dims: Width D of a token's embedding.
        kmeans_interval: Training batches from one k-means to the next.
        data_preprocessor: As in mmengine's BaseModel.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: ``downsampling`` is not a power of two above 1, or another option is no whole number above 0.

    Attributes:
        vocabulary: Number of tokens.
        stride: Side d of a token in pixels.
    """

    def __init__(
        self,
        num_embed: int = 512,
        downsampling: int = 4,
        width: int = 64,
        embed_dims: int = 32,
        kmeans_interval: int = 200,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        sizes = dict(num_embed=num_embed, width=width, embed_dims=embed_dims, kmeans_interval=kmeans_interval)
        check_whole_numbers('VQVAE', **sizes)
        check_whole_numbers('VQVAE', downsampling=downsampling)
        if downsampling < 2 or downsampling & (downsampling - 1):
            raise ValueError(f'VQVAE: downsampling must be a power of two above 1, not {downsampling}')
        widths = [3] + [width] * int(math.log2(downsampling))
        down, up = [], []
        for outer, inner in zip(widths[:-1], widths[1:], strict=True):
            down += [nn.Conv2d(outer, inner, 4, stride=2, padding=1), nn.ReLU()]
            up = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1), *up]
        self.encoder = nn.Sequential(*down, nn.Conv2d(width, embed_dims, 1))
        self.decoder = nn.Sequential(nn.Conv2d(embed_dims, width, 1), *up)
        self.quantizer = NormEMAVectorQuantizer(num_embed, embed_dims, beta=1.0)
        self.vocabulary, self.stride = num_embed, downsampling
        self.kmeans_interval = kmeans_interval
        self.register_buffer('batches', torch.tensor(0))

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: Literal['tensor', 'loss'] = 'tensor'
    ) -> Tensor | dict[str, Tensor]:
        """``fit`` of images (N, 3, H, W), or with ``mode='loss'`` their ``loss``."""
        with torch.autocast(inputs.device.type, enabled=False):  # lower precision would swap similar tokens
            return self.loss(inputs) if mode == 'loss' else self.fit(inputs)

    def fit(self, images: Tensor) -> Tensor:
        """Cosine similarity, (N, num_embed, H / d, W / d), of features and tokens; its argmax are an image's tokens."""
        features = F.normalize(self.encoder(images), dim=1)
        return torch.einsum('nchw,kc->nkhw', features, self.quantizer.embedding.weight)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (N, H / d, W / d), whole numbers below ``vocabulary``, of images (N, 3, H, W)."""
        return self.fit(images).argmax(dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (N, 3, h d, w d), in the units of those encoded, of tokens (N, h, w)."""
        return self.decoder(self.quantizer.embedding(tokens).permute(0, 3, 1, 2))

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Mean squared errors of the decoded images (N, 3, H, W), and of the features against their tokens."""
        features = self.encoder(images)
        is_due = bool(self.batches % self.kmeans_interval == 0)
        # An epoch's last, smaller batch would leave most tokens without features; the next one is taken then.
        waits = is_due and self.batches > 0 and features[:, 0].numel() < self.vocabulary
        if is_due and not waits:
            self.quantizer.embedding.initted.zero_()
        self.batches += not waits
        tokens, loss, _ = self.quantizer(features)
        return dict(loss_restored=F.mse_loss(self.decoder(tokens), images), loss_tokens=loss)
