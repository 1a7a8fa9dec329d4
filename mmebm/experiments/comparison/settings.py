"""What a comparison of methods is told: its methods, options and protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmebm.config_files import config_folder
from mmebm.experiments.comparison.tables import RANDOM
from mmebm.experiments.downstream.tasks import check_names

DOWNSTREAM = 'finetune'
TOKENIZER = 'tokenizer'
TOKENIZED = ('beit', 'cim-respix', 'cim-revdet')  # the methods that need it
SIZE = '32px'
METHODS = ('ebm', 'ebm-patches', 'mae', 'simmim', 'beit', 'maskfeat', 'supervised', RANDOM)
RATE = 'optim_wrapper.optimizer.lr'  # the learning rate in a config
FIRST_FINAL_SEED = 100  # not one of those by which anything was chosen


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        data: A folder that holds ``train/`` and ``test/`` or ``val/``, in each one folder per class; or ``shapes``.
        methods: Of ``known_methods()``, or ``random``, in this order.
        backbone: As in the configs' names.
        budget: Of each training: ``epochs=N``, ``seconds=S``, ``cpu-seconds=S`` or ``flops=F``.
        seeds: Trainings of each method.
        points: How many times along a run its frozen features are evaluated.
        finetune_points: How many of these points, the last ones, are fine-tuned as well.
        images: How many of the training images are used; None: all.
        work_dir: Where everything goes.
        cfg_options: Options of one method's config, of the tokenizer's or of fine-tuning's, by ``METHOD.KEY``.
        quick: Whether to leave out what takes long: compiling, most images and most epochs of fine-tuning.
        select: Whether to choose each method's learning rate on the training images alone.
        learning_rates: To choose from; none: the configs' own.
        final: The folder to score on, with one folder per class; None: ``test/`` or ``val/`` of the data.
        selection: Where ``select`` has left its choice; None: the configs' own learning rates.
        first_seed: Of ``seeds`` in a row; None: 100 with ``final``, else 0.
        reference: The method that ``final`` tests the others against; None: the first.
    """

    data: str
    methods: Sequence[str] = METHODS
    backbone: str = 'vit-w128'
    budget: str = 'epochs=30'
    seeds: int = 3
    points: int = 4
    finetune_points: int = 1
    images: int | None = None
    work_dir: Path = Path('work_dirs/compare')
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    select: bool = False
    learning_rates: Sequence[float] = ()
    final: str | None = None
    selection: Path | None = None
    first_seed: int | None = None
    reference: str | None = None

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        default = FIRST_FINAL_SEED if self.final else 0
        first = default if self.first_seed is None else self.first_seed
        return range(first, first + self.seeds)


def check_settings(comparison: Comparison) -> None:
    """Check that all settings have a meaning, and go together.

    Raises:
        ValueError: Names one that does not.
    """
    check_names(comparison.cfg_options, [TOKENIZER, DOWNSTREAM, *comparison.methods])
    if len({*comparison.methods}) < len(comparison.methods):
        raise ValueError(f'--methods {" ".join(comparison.methods)}: give different ones')
    if comparison.seeds < 1 or (comparison.images is not None and comparison.images < 1):
        raise ValueError('--seeds and --images must be at least 1')
    if comparison.points < 1 or comparison.finetune_points < 0:
        raise ValueError('--points must be at least 1, and --finetune-points at least 0')
    if comparison.select and comparison.final:
        raise ValueError('--select chooses on the training images, --final scores what was chosen: give one of them')
    rates = comparison.learning_rates
    if rates and not comparison.select:
        raise ValueError('--learning-rates: only --select tries several; give --cfg-options METHOD.' + RATE)
    if len({*rates}) < len(rates) or any(not 0 < rate < float('inf') for rate in rates):
        raise ValueError(f'--learning-rates {" ".join(map(str, rates))}: give different ones, above 0')
    if not comparison.final and (comparison.selection or comparison.reference):
        raise ValueError('--selection and --reference are for --final alone')
    if comparison.reference not in (None, *comparison.methods):
        raise ValueError(f'--reference {comparison.reference}: give one of --methods {" ".join(comparison.methods)}')
    named = [method for method in comparison.methods if f'{method}.{RATE}' in comparison.cfg_options]
    if named and (rates or comparison.selection):
        flag = '--learning-rates' if rates else '--selection'
        raise ValueError(f'--cfg-options {named[0]}.{RATE}: {flag} gives the learning rates; leave one of them out')


def known_methods() -> list[str]:
    """Those that have a config in ``configs/peers/``, for one of the backbones at least."""
    names = sorted(path.name.partition('_')[0] for path in (config_folder() / 'peers').glob(f'*_*_{SIZE}.py'))
    return [name for name in dict.fromkeys(names) if name != DOWNSTREAM]
