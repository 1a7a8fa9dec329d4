"""Computing something again under the same conditions."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states


def same_conditions(x: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """Makes contexts with the present autocast settings and random states (for dropout and the like).

    On exit, settings and random states are those before the context.

    Args:
        x: Any tensor on the device in question.
    """
    device = x.device.type
    autocast: dict[str, Any] = dict(enabled=torch.is_autocast_enabled(device), dtype=torch.get_autocast_dtype(device))
    cpu_state, (devices, device_states) = torch.get_rng_state(), get_device_states(x)
    host_states = random.getstate(), np.random.get_state()

    @contextmanager
    def same() -> Iterator[None]:
        outer_states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices, device_type=device), torch.autocast(device, **autocast):
            torch.set_rng_state(cpu_state)
            set_device_states(devices, device_states, device_type=device)
            _set_host_states(*host_states)
            try:
                yield
            finally:
                _set_host_states(*outer_states)

    return same


def _set_host_states(python_state: Any, numpy_state: Any) -> None:
    random.setstate(python_state)
    np.random.set_state(numpy_state)
