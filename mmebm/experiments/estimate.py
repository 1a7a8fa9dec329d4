"""How long a comparison will take, before its first training."""

from collections.abc import Sequence
from typing import NamedTuple

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmebm.experiments.training_cost import Speed, measure_speed
from mmebm.planning.config_facts import step_options

# Steps that are timed. The first one also starts the data loading.
ROUNDS = 4

# A training step computes about three times what the features of its images take, which the frozen metrics need.
FEATURES_PER_STEP = 3.0


class Estimate(NamedTuple):
    """Seconds that one seed of a method takes."""

    method: str
    pretraining: float
    frozen: float
    finetuning: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.pretraining + self.frozen + self.finetuning


def measure_eager_speed(cfg: Config) -> Speed:
    """See ``measure_speed``; without compiling, which would take longer than all that is estimated in a short run."""
    cfg = Config(cfg.to_dict())
    step_options(cfg).pop('compile', None)
    return measure_speed(cfg, ROUNDS)


def print_estimate(estimates: Sequence[Estimate], seeds: int) -> None:
    """Print what each method and everything together will take, to the standard error."""
    table = Table(title=f'Estimated time, {seeds} seed{"s" if seeds > 1 else ""}')
    for column in ('method', 'pretraining', 'frozen features', 'fine-tuning', 'all seeds'):
        table.add_column(column, justify='left' if column == 'method' else 'right')
    for estimate in estimates:
        table.add_row(estimate.method, *map(duration, estimate[1:]), duration(seeds * estimate.total))
    console = Console(stderr=True)
    console.print(table)
    total = duration(seeds * sum(estimate.total for estimate in estimates))
    console.print(
        f'About {total} in all, from the speed of a few steps; starting processes, and compiling where a config does, '
        'come on top. --quick gives a first look; a second call resumes.',
        soft_wrap=True,
        highlight=False,
    )


def duration(seconds: float) -> str:
    """Seconds as text, in a unit that a reader can grasp."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = seconds / 60
    return f'{minutes:.0f} min' if minutes < 100 else f'{minutes / 60:.1f} h'
