"""DALL-E's discrete autoencoder as a tokenizer; its weights come from ``tools/import_dalle.py``."""

from collections import OrderedDict
from pathlib import Path

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.selfsup.cae import Conv2d, DALLEEncoder
from torch import Tensor, nn

from mmebm.checkpoint import check_fit, read_checkpoint
from mmebm.registry import MODELS

GROUPS, BLOCKS = 4, 2  # of blocks, and in each


@MODELS.register_module()
class DALLE(BaseModule):
    """The discrete autoencoder of DALL-E (Ramesh et al., arXiv 2102.12092): 8192 tokens of 8 x 8 pixels.

    Images are x / 255 * 0.8 + 0.1 for pixels x, so that ``FrozenTokenizer`` needs ``mean=[-31.875] * 3`` and
    ``std=[318.75] * 3``. Parameters have the names that they were published with. The encoder is mmpretrain's; unlike
    there, it is in float32 on GPUs, too, so that tokens do not depend on the device. At 112 x 112 pixels, encoder and
    decoder take 26 and 30 billion multiply-adds.

    Args:
        checkpoint: File of ``tools/import_dalle.py``; None leaves the weights random.
        width: Channels of the encoder's first and of the decoder's last blocks; a multiple of 4.
        vocabulary: Number of tokens.
        embed_dims: Width of a token's embedding.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        FileNotFoundError: When weights are initialised: there is no such checkpoint.
        ValueError: Then: it is of another model.

    Attributes:
        vocabulary: Number of tokens.
        stride: Side of a token in pixels.
    """

    stride = 2 ** (GROUPS - 1)

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        width: int = 256,
        vocabulary: int = 8192,
        embed_dims: int = 128,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.checkpoint = checkpoint
        self.vocabulary = vocabulary
        self.encoder = DALLEEncoder(GROUPS, width, BLOCKS, vocab_size=vocabulary)
        self.decoder = DALLEDecoder(width, vocabulary, embed_dims)
        for module in self.modules():
            if isinstance(module, Conv2d):
                module.use_float16 = False

    def init_weights(self) -> None:
        """Load the checkpoint."""
        super().init_weights()
        if self.checkpoint is not None:
            state = read_checkpoint(self.checkpoint).state
            check_fit(state, self.state_dict(), str(self.checkpoint), f'DALLE of {self.vocabulary} tokens')
            self.load_state_dict(state)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (N, H / 8, W / 8), whole numbers below ``vocabulary``, of images (N, 3, H, W)."""
        return self.encoder(images).argmax(dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (N, 3, 8 h, 8 w), in the units of those encoded, of tokens (N, h, w)."""
        return self.decoder(tokens)


class DALLEDecoder(nn.Module):
    """Images from tokens: an embedding, and four groups of residual blocks, between which the map is doubled.

    Args:
        width: Channels of the last group; those before have 2, 4 and 8 times as many.
        vocabulary: Number of tokens.
        embed_dims: Width of a token's embedding.
    """

    def __init__(self, width: int, vocabulary: int, embed_dims: int) -> None:
        super().__init__()
        widths = [embed_dims, *(width * 2**i for i in reversed(range(GROUPS)))]
        parts = OrderedDict(input=Conv2d(vocabulary, embed_dims, 1))
        for number, (inner, outer) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            blocks = [DecoderBlock(inner if i == 0 else outer, outer) for i in range(BLOCKS)]
            parts[f'group_{number}'] = nn.Sequential(OrderedDict((f'block_{i}', b) for i, b in enumerate(blocks, 1)))
        parts['output'] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(width, 2 * 3, 1)))
        self.blocks = nn.Sequential(parts)
        self.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Images (N, 3, 8 h, 8 w) of 0 to 1 from tokens (N, h, w).

        The output are location and scale of a distribution of each value's logit; the location is taken.
        """
        embedding = self.blocks.input  # a convolution of one-hot vectors, for which a look-up gives the same
        x = F.embedding(tokens, embedding.w[:, :, 0, 0].t()) + embedding.b
        x = x.permute(0, 3, 1, 2)
        for number in range(1, GROUPS + 1):
            x = self.blocks[number](x)
            if number < GROUPS:
                x = F.interpolate(x, scale_factor=2, mode='nearest')
        return self.blocks.output(x)[:, :3].sigmoid()


class DecoderBlock(nn.Module):
    """x + f(x) / 64 with four convolutions in f; a convolution of 1 x 1 changes the channels of x.

    Args:
        inner: Channels before.
        outer: Channels behind; a multiple of 4.
    """

    gain = (GROUPS * BLOCKS) ** -2

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        hidden = outer // 4
        self.id_path = Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.res_path = nn.Sequential()
        sizes = [(inner, hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, outer, 3)]
        for number, size in enumerate(sizes, start=1):
            self.res_path.add_module(f'relu_{number}', nn.ReLU())
            self.res_path.add_module(f'conv_{number}', Conv2d(*size))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C', h, w) of (N, C, h, w)."""
        return self.id_path(x) + self.gain * self.res_path(x)
