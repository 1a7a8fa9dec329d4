"""Corrupted image modelling: an enhancer learns from images of which a generator has replaced some tokens."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmebm.models.heads.respix_head import ResPixHead
from mmebm.models.heads.revdet_head import RevDetHead
from mmebm.models.selfsup.base import BaseRestorer, fill, freeze
from mmebm.models.selfsup.checks import check_reached
from mmebm.models.selfsup.corrupted_view import CorruptedView
from mmebm.models.tokenizers.frozen import FrozenTokenizer
from mmebm.models.tokenizers.generator import Proposal, TokenGenerator
from mmebm.pixels import PEAK
from mmebm.registry import MODELS

Painting = Literal['decoded', 'pasted', 'masked']
Target = Literal['clean', 'decoded']


@MODELS.register_module()
class CIM(BaseRestorer):
    """Pretrains any backbone by corrupted image modelling (arXiv 2202.03382).

    A frozen tokenizer encodes an image. A small BEiT, the generator, masks some patches, predicts their tokens and
    draws one of each prediction. The tokenizer decodes the result; from this image the enhancer, backbone and head,
    restores the original (``ResPixHead``) or detects the replaced tokens (``RevDetHead``). Both are trained at once,
    with no gradient between them. In the checkpoint, the trained network is under ``backbone.``.

    ``docs/cim.md`` says which choices are the paper's and which are ours.

    Args:
        backbone: Config of the enhancer's backbone, whose last stage is a map of features (N, D, h, w).
        head: Config of a ``ResPixHead`` or a ``RevDetHead``.
        tokenizer: Config of a ``FrozenTokenizer``.
        generator: Config of a ``TokenGenerator``.
        painting: What the enhancer reads: ``decoded``, all of the decoded image; or ``pasted``, the image itself with
            decoded masked patches; or, for comparison, ``masked``, all of the decoded image with grey masked patches,
            which count as replaced. A decoded patch is less sharp than the image around it, so that ``pasted`` makes
            the masked patches easy to tell.
        neck: Config of a neck between backbone and head.
        frozen: Names of parameters that the losses do not depend on, such as biases behind which nothing is read;
            frozen, so that distributed training does not wait for their gradients.
        data_preprocessor: As in mmpretrain's self-supervised models.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        TypeError: Tokenizer, generator or head is none.
        ValueError: Tokenizer, generator and head are for different vocabularies, sizes of tokens or channels, or
            ``painting`` is unknown.
    """

    num_inputs = 1
    tokenizer: FrozenTokenizer
    generator: TokenGenerator

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        tokenizer: dict | FrozenTokenizer,
        generator: dict | TokenGenerator,
        painting: Painting = 'decoded',
        neck: dict | nn.Module | None = None,
        frozen: Sequence[str] = (),
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_target('CIM', 'clean', painting)
        self.painting = painting
        self.tokenizer = MODELS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.generator = MODELS.build(generator) if isinstance(generator, dict) else generator
        self._check_types()
        self._check_parts()
        freeze(self, frozen)

    def _check_types(self) -> None:
        kinds = dict(tokenizer=FrozenTokenizer, generator=TokenGenerator, head=(ResPixHead, RevDetHead))
        for name, kind in kinds.items():
            part, names = getattr(self, name, None), [k.__name__ for k in (kind if isinstance(kind, tuple) else [kind])]
            if not isinstance(part, kind):
                raise TypeError(f'CIM: model.{name} must be a {" or a ".join(names)}, not a {type(part).__name__}')

    def _check_parts(self) -> None:
        stride, patch = self.tokenizer.stride, self.generator.patch_size
        if self.generator.vocabulary != self.tokenizer.vocabulary:
            raise ValueError(
                f'CIM: the tokenizer has {self.tokenizer.vocabulary} tokens; set model.generator.vocabulary to that, '
                f'not to {self.generator.vocabulary}'
            )
        if patch != (stride, stride):
            raise ValueError(
                f'CIM: a token is {stride} x {stride} pixels of the image, and a patch of the generator {patch[0]} x '
                f'{patch[1]}; they must agree. Set model.generator.backbone.patch_size or model.tokenizer.scale'
            )
        token_stride = getattr(self.head, 'token_stride', stride)
        if token_stride != stride:
            raise ValueError(
                f'CIM: a token is {stride} x {stride} pixels of the image; set model.head.token_stride to that, not to '
                f'{token_stride}'
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the generator reads."""
        rows, columns = self.generator.grid
        height, width = self.generator.patch_size
        return rows * height, columns * width

    def loss(self, inputs: list[Tensor], data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Losses of generator and enhancer, and statistics, for a list of one normalised batch (N, C, H, W)."""
        proposal, view = self.corrupt(inputs)
        losses = self.generator.loss(proposal) | self.head.loss(self._enhance(view), view)
        return self._checked(losses, view) | self._statistics(proposal)

    def corrupt(
        self, inputs: Tensor | list[Tensor], rng: torch.Generator | None = None
    ) -> tuple[Proposal, CorruptedView]:
        """Replace tokens of normalised images (N, C, H, W), or of a list of that one batch.

        Args:
            inputs: The images.
            rng: For masks and draws; torch's default one if None.
        """
        images = self._images(inputs)
        pixels = self.to_pixels(images)
        proposal = self.generator(images, self.tokenizer.tokens(pixels), rng)
        return proposal, self._view(pixels, proposal)

    def pair(self, inputs: Tensor | list[Tensor], target: Target, rng: torch.Generator | None = None) -> CorruptedView:
        """The view of ``corrupt``, for another model to restore; its ``clean`` is what that restores.

        Args:
            inputs: The images.
            target: ``clean`` images, or what the tokenizer has ``decoded`` of their own tokens.
            rng: For masks and draws; torch's default one if None.

        Raises:
            ValueError: The target does not fit the painting.
        """
        check_target('CIM', target, self.painting)
        proposal, view = self.corrupt(inputs, rng)
        return view if target == 'clean' else view._replace(clean=self.tokenizer.decode(proposal.golden))

    def _images(self, inputs: Tensor | list[Tensor]) -> Tensor:
        """Check that inputs are one batch of images (N, C, H, W), of the generator's size.

        Raises:
            ValueError: They are not.
        """
        size, views = self.image_size, [inputs] if isinstance(inputs, Tensor) else inputs
        if len(views) != 1 or tuple(views[0].shape[-2:]) != size:
            found = f' of {views[0].shape[-2]} x {views[0].shape[-1]}' if views else ''
            raise ValueError(
                f'CIM needs one view of {size[0]} x {size[1]} pixels (model.generator.backbone.img_size), not '
                f'{len(views)}{found}; it corrupts images itself, without CorruptedPair'
            )
        return views[0]

    def _view(self, pixels: Tensor, proposal: Proposal) -> CorruptedView:
        """Images (N, C, H, W) and what the tokenizer decodes of their proposal, both in pixel units."""
        corrupted, replaced = self.tokenizer.decode(proposal.tokens), proposal.replaced
        if self.painting == 'pasted':
            corrupted = torch.where(self.pixels_of(proposal.masked), corrupted, pixels)
        if self.painting == 'masked':
            corrupted, replaced = self._greyed(corrupted, proposal.masked), proposal.masked
        return CorruptedView(pixels, corrupted, replaced)

    def _greyed(self, pixels: Tensor, cells: Tensor) -> Tensor:
        """Images (N, C, H, W) in pixel units, grey at tokens (N, h, w)."""
        return pixels.masked_fill(self.pixels_of(cells), PEAK / 2)

    def pixels_of(self, cells: Tensor) -> Tensor:
        """The pixels (N, 1, H, W) of tokens (N, h, w), both bool."""
        return F.interpolate(cells.float().unsqueeze(1), scale_factor=self.tokenizer.stride, mode='nearest') > 0

    def _enhance(self, view: CorruptedView) -> Tensor:
        """The head's output for the corrupted image."""
        feats = self.backbone(self.from_pixels(view.corrupted))
        return self.head(self.neck(feats) if self.with_neck else feats)

    def _checked(self, losses: dict[str, Tensor], view: CorruptedView) -> dict[str, Tensor]:
        """The losses, after those checks of the first batch that need values and the graph."""
        if self._is_first_batch:
            self.tokenizer.check(view.clean)
            check_reached(self, {name: value for name, value in losses.items() if 'loss' in name})
            self._is_first_batch = False
        return losses

    @torch.no_grad()
    def _statistics(self, proposal: Proposal) -> dict[str, Tensor]:
        """Share of tokens that were replaced, and perplexity of the batch's golden ones, at most the vocabulary."""
        golden = proposal.golden.flatten()
        counts = golden.new_zeros(self.tokenizer.vocabulary, dtype=torch.float32)
        shares = counts.scatter_add(0, golden, torch.ones_like(golden, dtype=torch.float32)) / len(golden)
        return dict(
            replaced_share=proposal.replaced.float().mean(),
            token_perplexity=torch.special.entr(shares).sum().exp(),
        )

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's features of whole, uncorrupted images (N, C, H, W)."""
        return self.backbone(inputs if isinstance(inputs, Tensor) else inputs[0])

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Corrupt images, and restore them or tell which tokens were replaced.

        Args:
            inputs: Normalised images (N, C, H, W), or a list of that one batch.
            data_samples: N samples to fill, or none.

        Returns:
            N data samples with, in pixel units, 0 to 255, each (C, H, W): ``clean``; ``masked``, with grey patches
            where the generator reads none; ``corrupted``, what the enhancer reads; and, by ``ResPixHead``,
            ``restored``. Tokens, each (h, w): ``golden``, ``sampled``, ``replaced`` (True = another than the golden
            one), and by ``RevDetHead`` ``replaced_logits`` and maps of truth and prediction to look at.
            ``generator_accuracy`` is the share of masked tokens that the generator finds most probable, a scalar.
        """
        # The same for every batch: evaluations are comparable, and training's random state is untouched.
        rng = torch.Generator(next(self.parameters()).device).manual_seed(0)
        proposal, view = self.corrupt(inputs, rng)
        hits = proposal.logits.argmax(dim=2) == proposal.targets
        fields = dict(
            clean=view.clean,
            masked=self._greyed(view.clean, proposal.masked),
            corrupted=view.corrupted,
            golden=proposal.golden,
            sampled=proposal.tokens,
            replaced=view.replaced,
            generator_accuracy=hits.float().mean(dim=1),
        )
        return fill(data_samples, fields | self.head.predict(self._enhance(view), view))


def check_target(owner: str, target: str, painting: str) -> None:
    """Check what is corrupted and what is restored.

    Raises:
        ValueError: One is unknown, or they do not fit each other.
    """
    if painting not in get_args(Painting):
        raise ValueError(f'{owner}: painting must be one of {list(get_args(Painting))}, not {painting!r}')
    if target not in get_args(Target):
        raise ValueError(f'{owner}: target must be one of {list(get_args(Target))}, not {target!r}')
    if target == 'decoded' and painting == 'pasted':
        raise ValueError(
            f"{owner}: painting='pasted' leaves original pixels where nothing is masked, which target='decoded' does "
            "not have; take painting='decoded' or target='clean'"
        )
