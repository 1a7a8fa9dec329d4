"""Noise-contrastive losses: an energy is the logit of being corrupted (Gutmann and Hyvärinen, AISTATS 2010)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def image_nce(clean: Tensor, corrupted: Tensor) -> Tensor:
    """Mean of log(1 + exp(E)) over energies (N,) of clean and of log(1 + exp(-E)) over those of corrupted images."""
    return F.softplus(clean).mean() + F.softplus(-corrupted).mean()


def token_nce(energies: Tensor, changed: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean over images of the mean binary cross-entropy of their patches, a scalar.

    Which patches are corrupted is told for each of them, as for the words of a text by Electric (arXiv 2012.08561).

    Args:
        energies: Of the patches, (N, M).
        changed: (N, M), True = corrupted.
        counts: (N, M), True = counts in the mean; None for all.
    """
    losses = F.binary_cross_entropy_with_logits(energies, changed.to(energies.dtype), reduction='none')
    if counts is None:
        return losses.mean()
    return ((losses * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)).mean()


@torch.no_grad()
def token_accuracy(energies: Tensor, changed: Tensor, counts: Tensor | None = None) -> Tensor:
    """Share of patches, as in ``token_nce``, whose energy is above zero if and only if they are corrupted; a scalar."""
    right = ((energies > 0) == changed).to(energies.dtype)
    return right.mean() if counts is None else (right * counts).sum() / counts.sum().clamp(min=1)
