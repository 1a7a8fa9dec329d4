"""Values far above those that came before."""

from collections.abc import Iterable

import numpy as np

WINDOW = 128


class Spikes:
    """Finds values more than some standard deviations above the mean of the last ``WINDOW`` ones.

    Args:
        sigmas: How many standard deviations.
        values: The last values so far.
    """

    def __init__(self, sigmas: float, values: Iterable[float] = ()) -> None:
        self.sigmas = sigmas
        self.values = [*values]

    def limit(self) -> float:
        """The highest value that is none; infinite until there are ``WINDOW`` values."""
        if len(self.values) < WINDOW:
            return float('inf')
        return float(np.mean(self.values) + self.sigmas * np.std(self.values))

    def is_spike(self, value: float) -> bool:
        """Whether a value is one; any other joins the window."""
        if value > self.limit():
            return True
        self.values = [*self.values, value][-WINDOW:]
        return False
