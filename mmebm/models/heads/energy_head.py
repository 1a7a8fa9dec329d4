"""Maps a backbone's features to one energy per image."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmebm.models.losses.restoration_loss import RestorationLoss
from mmebm.option_check import check_whole_numbers
from mmebm.registry import MODELS


class LinearEnergy(nn.Linear):
    """w . f. No bias: the gradient of the energy does not depend on it, so it would never train."""

    def __init__(self, in_channels: int, hidden_channels: int | None = None):
        super().__init__(in_channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Energies (...) of features (..., D)."""
        return super().forward(features).squeeze(-1)


class MLPEnergy(nn.Sequential):
    """w . GELU(A f + b). GELU, since ReLU's second derivative is zero; no last bias, since it would never train."""

    def __init__(self, in_channels: int, hidden_channels: int | None = None):
        hidden_channels = hidden_channels or in_channels
        super().__init__(nn.Linear(in_channels, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """Energies (...) of features (..., D)."""
        return super().forward(features).squeeze(-1)


class QuadraticEnergy(nn.Linear):
    """|A f + b|^2 / 2: half the squared norm of a projection, never negative."""

    def __init__(self, in_channels: int, hidden_channels: int | None = None):
        super().__init__(in_channels, hidden_channels or in_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Energies (...) of features (..., D)."""
        return super().forward(features).square().sum(dim=-1) / 2


ENERGIES = {'linear': LinearEnergy, 'mlp': MLPEnergy, 'quadratic': QuadraticEnergy}


@MODELS.register_module()
class EnergyHead(BaseModule):
    """Energy of an image from its features, and the loss of its restoration.

    A stage's features are tokens (N, L, D), a map (N, D, H, W) or (N, H, W, D), or a pooled vector (N, D). With several
    stages, the energies of the last ``len(in_channels)`` stages are summed.

    Args:
        in_channels: D of the last stage, or of the last several ones, in the order of the backbone's outputs. A stage
            of several tensors, such as a map and a class token, counts as that many.
        kind: ``linear``, ``mlp`` or ``quadratic``. With ``linear``, biases that only shift the features of the last
            stage never train (see ``EBMAlgorithm``'s ``frozen``).
        hidden_channels: Width of ``mlp``'s hidden layer or ``quadratic``'s projection; D if not given.
            ``linear`` has none.
        over: ``pooled``: the energy of the mean token; ``tokens``: the sum of the tokens' energies.
        loss: Config of the loss over the restored images; ``RestorationLoss()`` if not given.
        init_cfg: As in mmengine's BaseModule.

    Raises:
        ValueError: Unknown ``kind`` or ``over``, a width is no whole number of at least 1, or ``linear`` is given one.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        kind: Literal['linear', 'mlp', 'quadratic'] = 'mlp',
        hidden_channels: int | None = None,
        over: Literal['pooled', 'tokens'] = 'tokens',
        loss: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        if kind not in ENERGIES:
            raise ValueError(f'EnergyHead: kind must be one of {list(ENERGIES)}, not {kind!r}')
        if over not in ('pooled', 'tokens'):
            raise ValueError(f"EnergyHead: over must be 'pooled' or 'tokens', not {over!r}")
        if hidden_channels is not None:
            check_whole_numbers('EnergyHead', hidden_channels=hidden_channels)
            if kind == 'linear':
                raise ValueError("EnergyHead: kind='linear' has no hidden layer; leave out hidden_channels")
        self.in_channels = list(in_channels) if isinstance(in_channels, Sequence) else [in_channels]
        for channels in self.in_channels:
            check_whole_numbers('EnergyHead', in_channels=channels)
        self.over = over
        self.is_nonnegative = kind == 'quadratic'
        self.energies = nn.ModuleList(ENERGIES[kind](channels, hidden_channels) for channels in self.in_channels)
        self.restoration_loss = MODELS.build(loss) if isinstance(loss, dict) else loss or RestorationLoss()

    def forward(
        self,
        feats: Tensor | Sequence[Tensor],
        images: Tensor | None = None,
        kept: Tensor | None = None,
        in_parts: bool = False,
    ) -> Tensor:
        """Energies (N,), the sums of ``token_energies``; or these themselves, (N, L).

        Call the head and not ``token_energies``: engines that shard weights gather them for a module's call.
        """
        energies = self.token_energies(feats, images, kept)
        return energies if in_parts else energies.sum(dim=1)

    def token_energies(
        self, feats: Tensor | Sequence[Tensor], images: Tensor | None = None, kept: Tensor | None = None
    ) -> Tensor:
        """Energies (N, L) of tokens, in at least float32, stage by stage; of pooled features, one for each stage.

        Args:
            feats: Features of one or several stages, in the order of the backbone's outputs.
            images: The images of the features, (N, C, H, W); not read here, but by other heads.
            kept: Indices (N, M) of the patches of the features, None for all; likewise.

        Raises:
            TypeError: Features are no floating-point tensors.
            ValueError: Fewer stages than ``in_channels``, not all tensors of the last stage, or features of another
                width.
        """
        stages = stages_of(feats, len(self.energies))
        energies = []
        for energy_of, channels, stage in zip(
            self.energies, self.in_channels, stages[-len(self.energies) :], strict=True
        ):
            tokens = as_tokens(stage, channels)
            if self.over == 'pooled':
                tokens = tokens.mean(dim=1, keepdim=True)
            of_tokens = energy_of(tokens)
            # Not in half precision: the sum is over many tokens.
            energies.append(of_tokens.to(torch.promote_types(of_tokens.dtype, torch.float32)))
        return torch.cat(energies, dim=1) if len(energies) > 1 else energies[0]

    def loss(
        self, restored: Tensor, clean: Tensor, corrupted: Tensor, where: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of one restoration step, a scalar under ``loss``.

        Args:
            restored: x_k, (N, C, H, W).
            clean: (N, C, H, W).
            corrupted: x_0, (N, C, H, W).
            where: Mask (N, H, W) of the pixels that count, True = counts; None for all.
        """
        return dict(loss=self.restoration_loss(restored, clean, corrupted, where))


def stages_of(feats: Tensor | Sequence, number: int) -> list[Tensor]:
    """Features of all stages, in their order; a stage of several tensors counts as that many.

    Args:
        feats: A tensor, or a sequence of tensors and of sequences of them.
        number: How many of the last ones an energy reads.

    Raises:
        TypeError: Features are no floating-point tensors.
        ValueError: There are fewer, or not all tensors of the last stage would be read.
    """
    nested = list(feats) if isinstance(feats, (list, tuple)) else [feats]
    stages = [stage if isinstance(stage, (list, tuple)) else [stage] for stage in nested]
    features = [feature for stage in stages for feature in stage]
    for feature in features:
        if not (isinstance(feature, Tensor) and feature.is_floating_point()):
            kind = feature.dtype if isinstance(feature, Tensor) else type(feature).__name__
            raise TypeError(
                f'EnergyHead: the backbone must return a tensor of features or a sequence of these, not {kind}'
            )
    if len(features) < number:
        raise ValueError(
            f'EnergyHead has in_channels for {number} stages, but the backbone returns {len(features)}: set its '
            'out_indices'
        )
    if len(stages[-1]) > number:
        shapes = ' and '.join(str(tuple(feature.shape)) for feature in stages[-1])
        raise ValueError(
            f'EnergyHead: the last stage of the backbone is {len(stages[-1])} tensors, {shapes}; set in_channels to '
            'the widths of all of them, or an out_type of the backbone that gives one'
        )
    return features


def as_tokens(features: Tensor, channels: int) -> Tensor:
    """Features in any layout that ``EnergyHead`` takes, as tokens (N, L, D), with D = ``channels``.

    A map whose second and last axes are both D long is read as (N, D, H, W).

    Raises:
        ValueError: The features have no known layout with an axis of length D for the channels.
    """
    if features.dim() == 4 and features.shape[1] == channels:
        return features.flatten(2).transpose(1, 2)
    if features.shape[-1] == channels and features.dim() in (2, 3, 4):
        return features.reshape(features.shape[0], -1, channels)
    raise ValueError(
        f'EnergyHead: in_channels is {channels}, but the backbone returns features of shape {tuple(features.shape)}; '
        'expected (N, D), (N, L, D), (N, D, H, W) or (N, H, W, D), where D is in_channels'
    )
