"""Proposes tokens for masked patches: a small BEiT whose predictions are sampled."""

import math
from inspect import signature
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmebm.models.patches import gather_patches
from mmebm.option_check import check_positive, check_whole_numbers
from mmebm.registry import MODELS

Choice = Literal['drawn', 'most_probable', 'uniform']


class Proposal(NamedTuple):
    """Tokens of a batch, some of them replaced.

    Attributes:
        golden: The tokenizer's tokens (N, h, w).
        tokens: (N, h, w), the generator's choice at masked positions, golden ones elsewhere.
        places: The masked positions (N, M), numbered row by row.
        logits: Predictions (N, M, K) of the golden tokens there, with the generator's gradient.
    """

    golden: Tensor
    tokens: Tensor
    places: Tensor
    logits: Tensor

    @property
    def masked(self) -> Tensor:
        """(N, h, w), True = masked."""
        mask = torch.zeros_like(self.golden, dtype=torch.bool).flatten(1)
        return mask.scatter(1, self.places, True).view_as(self.golden)

    @property
    def replaced(self) -> Tensor:
        """(N, h, w), True = another token than the golden one; a draw that hits it replaces nothing."""
        return self.tokens != self.golden

    @property
    def targets(self) -> Tensor:
        """Golden tokens (N, M) at masked positions."""
        return self.golden.flatten(1).gather(1, self.places)


@MODELS.register_module()
class TokenGenerator(BaseModule):
    """Predicts the tokens of masked patches, and draws one of each prediction.

    Args:
        backbone: Config of mmpretrain's ``BEiTPretrainViT``, with one patch per token.
        vocabulary: Number K of tokens.
        mask_ratio: Share of patches that are masked, at random; every image has the same number of them.
        temperature: By which logits are divided before tokens are drawn.
        choice: What replaces the tokens of masked patches: one ``drawn`` from each prediction; or, for comparison, the
            ``most_probable`` one, or one of all tokens with equal probability, ``uniform``.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        TypeError: The backbone reads no masks.
        ValueError: The ratio leaves no patch masked or none visible, the temperature is not positive, or ``choice`` is
            unknown.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        vocabulary: int,
        mask_ratio: float = 0.55,
        temperature: float = 1.0,
        choice: Choice = 'drawn',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        self.backbone = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
        if 'mask' not in signature(self.backbone.forward).parameters or not hasattr(self.backbone, 'patch_resolution'):
            raise TypeError(
                f'TokenGenerator: {type(self.backbone).__name__} does not read images with masked patches; set '
                "model.generator.backbone.type='BEiTPretrainViT'"
            )
        check_whole_numbers('TokenGenerator', vocabulary=vocabulary)
        self.vocabulary = vocabulary
        self.head = nn.Linear(self.backbone.embed_dims, vocabulary)
        self.num_patches = math.prod(self.grid)
        self.configure(mask_ratio, temperature, choice)

    def configure(self, mask_ratio: float, temperature: float, choice: Choice) -> None:
        """Set how tokens are replaced, by the arguments and with the errors of the constructor."""
        if not (isinstance(mask_ratio, (int, float)) and math.isfinite(mask_ratio)):
            raise ValueError(f'TokenGenerator: mask_ratio must be a number, not {mask_ratio!r}')
        check_positive('TokenGenerator', temperature=temperature)
        number = round(mask_ratio * self.num_patches)
        if not 0 < number < self.num_patches:
            raise ValueError(
                f'TokenGenerator: mask_ratio={mask_ratio} masks {number} of {self.num_patches} patches; '
                'one must be masked and one visible'
            )
        if choice not in get_args(Choice):
            raise ValueError(f'TokenGenerator: choice must be one of {list(get_args(Choice))}, not {choice!r}')
        self.mask_ratio, self.num_masked = mask_ratio, number
        self.temperature = temperature
        self.choice = choice

    @property
    def grid(self) -> tuple[int, int]:
        """Rows h and columns w of patches."""
        return tuple(self.backbone.patch_resolution)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return tuple(self.backbone.patch_embed.projection.stride)

    def forward(self, images: Tensor, golden: Tensor, rng: torch.Generator | None = None) -> Proposal:
        """Mask patches, predict their tokens and choose.

        Args:
            images: Normalised, (N, C, H, W).
            golden: Their tokens (N, h, w).
            rng: For random numbers; torch's default one if None.
        """
        places = self.draw_places(golden, rng)
        mask = torch.zeros_like(golden).flatten(1).scatter(1, places, 1).view_as(golden)  # 1 = masked
        features = self.backbone(images, mask)[-1][:, -self.num_patches :]
        logits = self.head(gather_patches(features, places))
        tokens = golden.flatten(1).scatter(1, places, self.choose(logits.detach(), rng)).view_as(golden)
        return Proposal(golden, tokens, places, logits)

    def draw_places(self, golden: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Masked positions (N, M) for tokens (N, h, w), all sets of M equally probable."""
        order = torch.rand(len(golden), self.num_patches, device=golden.device, generator=rng).argsort(dim=1)
        return order[:, : self.num_masked]

    def choose(self, logits: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Tokens (N, M) for masked positions, by the logits (N, M, K) of each."""
        match self.choice:
            case 'drawn':
                return draw_tokens(logits, self.temperature, rng)
            case 'most_probable':
                return logits.argmax(dim=-1)
            case 'uniform':
                return torch.randint(self.vocabulary, logits.shape[:-1], device=logits.device, generator=rng)

    def loss(self, proposal: Proposal) -> dict[str, Tensor]:
        """Cross-entropy of the golden tokens at masked positions, and the share of those that are the most probable."""
        logits, targets = proposal.logits.flatten(0, 1).float(), proposal.targets.flatten()
        return dict(
            loss_generator=F.cross_entropy(logits, targets),
            generator_accuracy=(logits.argmax(dim=1) == targets).float().mean(),
        )


@torch.no_grad()
def draw_tokens(logits: Tensor, temperature: float, rng: torch.Generator | None = None) -> Tensor:
    """One token (...) of each categorical distribution, of logits (..., K) / temperature.

    The largest of logits with Gumbel noise, in float32: ``torch.multinomial`` is inexact in half precision, and
    raises on some devices when deterministic algorithms are asked for.
    """
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=rng).log()  # of Gumbel, negated
    return (logits.float() / temperature - noise).argmax(dim=-1)
