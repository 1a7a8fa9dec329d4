"""The initial step size of ``step_size='auto'``."""

import math
from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from torch import Tensor

# Length of the first step of step_size='auto', relative to the corruption. Small, so that training starts near the
# identity instead of first having to unlearn noise.
AUTO_REACH = 0.1


def calibrated_log_step_size(squared_error: Tensor, gradients: Iterable[Tensor]) -> Tensor:
    """Logarithm of a = 0.1 rms(x_0 - clean) / rms(dE/dx) over all processes, a scalar.

    Args:
        squared_error: Sum of squared differences of the corrupted images from the clean ones, a scalar.
        gradients: dE/dx of all parts of the batch, (n, C, H, W).

    Raises:
        ValueError: No image is corrupted, or the gradient of the energy is zero or not finite.
    """
    squared_gradient = sum(gradient.float().square().sum() for gradient in gradients)
    squares = torch.stack([squared_error, squared_gradient])
    all_reduce(squares)
    if not ((squares > 0) & squares.isfinite()).all():
        raise ValueError(
            "step_size='auto' needs a first batch in which the images are corrupted and the energy has a "
            f'finite gradient; sums of squares: {squares.tolist()}'
        )
    return (squares[0] / squares[1]).log() / 2 + math.log(AUTO_REACH)
