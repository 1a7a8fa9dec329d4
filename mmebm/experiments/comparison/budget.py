"""How long a training may be, in epochs, seconds or FLOPs, and a config's schedule for it."""

import math
from typing import NamedTuple

from mmengine.config import Config

from mmebm.experiments.training_cost import Speed
from mmebm.launch.schedule import schedule, stretched, without_short

CLOCKS = ('seconds', 'cpu-seconds')  # budgets for which a training's speed is measured


class Budget(NamedTuple):
    """How long each method may train: an amount of ``epochs``, ``seconds``, ``cpu-seconds`` or ``flops``."""

    kind: str
    amount: float

    def epochs(self, images: int, flops_per_image: float, speed: Speed | None = None) -> int:
        """Whole epochs within the budget.

        Args:
            images: Per epoch.
            flops_per_image: Of a training step.
            speed: Of the training; needed for a budget of seconds, or CPU seconds, alone.

        Raises:
            ValueError: Not even one.
        """
        amount, cost = self.amount, 1.0
        if self.kind == 'flops':
            cost = images * flops_per_image
        if self.kind in CLOCKS:
            amount, cost = self.amount - speed.startup_seconds, images / speed.images_per_second
        epochs = math.floor(amount / cost * (1 + 1e-9))  # of float division
        if epochs < 1:
            takes = self.amount - amount + cost
            raise ValueError(f'--budget {self.kind}={self.amount:g} is less than an epoch, which takes {takes:.3g}')
        return epochs


def parse_budget(text: str) -> Budget:
    """A budget from ``epochs=N``, ``seconds=S``, ``cpu-seconds=S`` or ``flops=F``.

    Raises:
        ValueError: It is none of these, or not positive.
    """
    kind, _, amount = text.partition('=')
    try:
        budget = Budget(kind, float(amount))
    except ValueError:
        budget = Budget(kind, 0.0)
    if kind not in ('epochs', *CLOCKS, 'flops') or not 0 < budget.amount < math.inf:
        raise ValueError(f'--budget {text}: give cpu-seconds=S, epochs=N, seconds=S or flops=F, above 0')
    return budget


def spread_points(epochs: int, number: int) -> list[int]:
    """About ``number`` epochs at equal distances, the last one among them."""
    interval = math.ceil(epochs / number)
    return [*range(interval, epochs, interval), epochs]


def set_epochs(cfg: Config, epochs: int, steps: int) -> None:
    """Let a config train for a number of epochs, its schedule stretched or shrunk.

    Args:
        cfg: The config.
        epochs: How many.
        steps: Per epoch, of which each part of the schedule needs two; a shorter one is left out.
    """
    old = cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler = without_short([stretched(part, old, epochs) for part in schedule(cfg)], steps)
