"""How well scores tell positives from negatives, in operations that wait for no device and need no known values."""

import torch
from torch import Tensor


@torch.no_grad()
def detection_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of logits that are above zero if and only if their label is True; a scalar."""
    return ((logits > 0) == labels).float().mean()


@torch.no_grad()
def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Share of pairs of a positive and a negative whose positive has the higher score; a scalar.

    By the sum of the positives' ranks (Mann-Whitney). Equal scores are ordered by their place; not a number if all
    labels are equal.
    """
    labels = labels.flatten().double()
    ranks = scores.flatten().argsort(stable=True).argsort() + 1
    positives, negatives = labels.sum(), (1 - labels).sum()
    return (((ranks * labels).sum() - positives * (positives + 1) / 2) / (positives * negatives)).float()
