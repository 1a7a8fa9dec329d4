"""How long a comparison will take, before its first training."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmebm.experiments.comparison.budget import CLOCKS, spread_points
from mmebm.experiments.comparison.comparison import Bench
from mmebm.experiments.comparison.settings import DOWNSTREAM, TOKENIZED, TOKENIZER
from mmebm.experiments.comparison.tables import RANDOM
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


def estimates(bench: Bench, startup: float) -> Iterator[Estimate]:
    """How long a seed of each method will take, with all of its learning rates. One that fails is left to its training.

    Args:
        bench: The comparison, nothing of which need be trained.
        startup: Seconds that a process takes before its training.
    """
    images = bench.images or bench.num_images
    per_second = eager_speed(bench, DOWNSTREAM)
    frozen = (images + bench.scoring.num_images()) / (FEATURES_PER_STEP * per_second)
    finetuning = startup + images * bench.downstream.train_cfg.max_epochs / per_second
    finetune_points = bench.comparison.finetune_points
    first_tokenized = next((method for method in bench.comparison.methods if method in TOKENIZED), None)
    for method in bench.comparison.methods:
        if method == RANDOM:
            yield Estimate(RANDOM, 0.0, frozen, finetuning * min(finetune_points, 1))
            continue
        try:
            seconds, points = pretraining_estimate(bench, method)
            if method == first_tokenized:  # the others read the same tokenizer
                ratio = eager_speed(bench, method) / eager_speed(bench, TOKENIZER)
                yield Estimate(TOKENIZER, startup + seconds * ratio, 0.0, 0.0)
        except RuntimeError:
            continue
        parts = (startup + seconds, points * frozen, finetuning * min(finetune_points, points))
        yield Estimate(method, *(len(bench.rates[method]) * part for part in parts))


def pretraining_estimate(bench: Bench, method: str) -> tuple[float, int]:
    """Seconds of a method's training steps, and at how many points its features are evaluated."""
    if bench.budget.kind in CLOCKS:  # its epochs are known only after compiling
        return bench.budget.amount, bench.comparison.points
    epochs = bench.epochs(method)
    images = epochs * bench.cost(method)['steps'] * bench.config(method).train_dataloader.batch_size
    return images / eager_speed(bench, method), len(spread_points(epochs, bench.comparison.points))


def eager_speed(bench: Bench, method: str) -> float:
    """Images per second of a method's training without compiling."""
    return Speed(*bench.known(method, 'eager_speed', measure_eager_speed)).images_per_second


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
        f'About {total} in all, from the speed of a few steps; compiling, where a config does, comes on top (minutes '
        'on few cores). --quick gives a first look; a second call resumes.',
        soft_wrap=True,
        highlight=False,
    )


def duration(seconds: float) -> str:
    """Seconds as text, in a unit that a reader can grasp."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = seconds / 60
    return f'{minutes:.0f} min' if minutes < 100 else f'{minutes / 60:.1f} h'
