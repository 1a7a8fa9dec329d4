"""The states of all random generators that a training step draws from."""

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The present states, as tensors, arrays and plain containers."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), cuda=cuda)


def set_random_state(state: dict[str, Any]) -> None:
    """Put states back; that of a GPU only where there is one."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
