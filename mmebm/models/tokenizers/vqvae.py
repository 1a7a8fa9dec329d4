"""A small tokenizer of images, for BEiT where DALL-E's weights cannot be had."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmpretrain.models.utils import NormEMAVectorQuantizer
from torch import Tensor, nn

from mmebm.registry import MODELS


@MODELS.register_module()
class VQVAE(BaseModel):
    """A discrete autoencoder: each position of a grid gets one of K tokens, and these restore the image.

    A VQ-VAE (van den Oord et al., arXiv 1711.00937) whose codebook follows the encoder's features by moving averages,
    from k-means of the first batch on, as in BEiT v2 (mmpretrain's ``NormEMAVectorQuantizer``). Since most tokens fall
    out of use while the features change, k-means is done again now and then. Processes do not share it: train in one.

    BEiT calls its ``target_generator`` without a mode, which gives it how well each token fits.

    Args:
        num_embed: K, the size of the vocabulary.
        downsampling: Width of a token in pixels, a power of two.
        width: Channels of the convolutions.
        embed_dims: Length of a token's vector.
        kmeans_interval: K-means is done on every so many-th training batch.
        data_preprocessor: As in mmengine's BaseModel.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: ``downsampling`` is not a power of two.
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
        self.kmeans_interval = kmeans_interval
        self.register_buffer('batches', torch.tensor(0))

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: Literal['tensor', 'loss'] = 'tensor'
    ) -> Tensor | dict[str, Tensor]:
        """``fit`` of images (N, 3, H, W), or with ``mode='loss'`` their ``loss``."""
        with torch.autocast(inputs.device.type, enabled=False):  # lower precision would exchange near tokens
            return self.loss(inputs) if mode == 'loss' else self.fit(inputs)

    def fit(self, images: Tensor) -> Tensor:
        """Cosine of the features to every token's vector, (N, K, H / d, W / d); the argmax are an image's tokens."""
        features = F.normalize(self.encoder(images), dim=1)
        return torch.einsum('nchw,kc->nkhw', features, self.quantizer.embedding.weight)

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Squared error of the restored images, and of the features against their tokens' vectors."""
        if self.batches % self.kmeans_interval == 0:
            self.quantizer.embedding.initted.zero_()
        self.batches += 1
        tokens, loss, _ = self.quantizer(self.encoder(images))
        return dict(loss_restored=F.mse_loss(self.decoder(tokens), images), loss_tokens=loss)
