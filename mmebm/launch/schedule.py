"""Schedules of learning rates that end when the training ends."""

from collections.abc import Iterable, Sequence

from mmengine.config import Config
from mmengine.optim import ConstantParamScheduler, LinearParamScheduler, _ParamScheduler

# What of a scheduler counts epochs or iterations.
COUNTS = ('begin', 'end', 'T_max', 'step_size', 'total_steps')
LISTS_OF_COUNTS = ('milestones', 'periods')

# mmengine's ``end`` of a scheduler that has none.
NO_END = 10**9


def training_length(cfg: Config) -> int | None:
    """Epochs of a config's training, or iterations where it is by iteration; None if it has none."""
    train_cfg = cfg.get('train_cfg') or {}
    return train_cfg.get('max_epochs') or train_cfg.get('max_iters')


def follow_length(cfg: Config, old: int | None, options: Iterable[str]) -> None:
    """Stretch or shrink a config's schedule to the length that an option gave its training, in place.

    A schedule that options have set stays as it is, and so does one that did not end with the training before.

    Args:
        cfg: The config with the options.
        old: Its ``training_length`` without them.
        options: Their dotted keys.
    """
    new, parts = training_length(cfg), schedule(cfg)
    is_set = any(key.partition('.')[0] == 'param_scheduler' for key in options)
    by_epoch = 'max_epochs' in (cfg.get('train_cfg') or {})
    ends = [part.get('end', old) for part in parts if part.get('by_epoch', True) == by_epoch]
    if parts and old and new and old != new and not is_set and (not ends or max(ends) == old):
        cfg.param_scheduler = [stretched(part, old, new) for part in parts]


def schedule(cfg: Config) -> list[dict]:
    """A config's schedulers; none where several optimisers have their own."""
    parts = cfg.get('param_scheduler') or []
    if isinstance(parts, dict):
        return [parts] if 'type' in parts else []
    return [*parts]


def stretched(part: dict, old: int, new: int) -> dict:
    """A scheduler's config for a training of another length: a warm-up, for instance, takes the same share of it.

    Args:
        part: The config, which stays as it is.
        old: Length of the training that it is for.
        new: Length of the training to make it for, in the same unit.

    Returns:
        One of whole epochs or iterations, but for ``convert_to_iter_based``, which takes parts of an epoch.
    """
    part = type(part)(part)
    if 'T_max' in part and part['T_max'] == part.get('end', old) - part.get('begin', 0):
        del part['T_max']  # as by default, and free of rounding

    def scaled(value: float) -> float:
        value = value * new / old
        return value if part.get('convert_to_iter_based') else round(value)

    part.update({key: scaled(part[key]) for key in COUNTS if key in part})
    part.update({key: [scaled(value) for value in part[key]] for key in LISTS_OF_COUNTS if key in part})
    return part


def without_short(parts: Sequence[dict], epoch_length: int) -> list[dict]:
    """The schedulers' configs but for those of less than two steps, as a warm-up in a very short training.

    mmengine refuses one without steps, and one step would leave the rate at the first value of the warm-up.

    Args:
        parts: The configs.
        epoch_length: Iterations per epoch.
    """

    def steps(part: dict) -> int:
        scale = epoch_length if part.get('convert_to_iter_based') else 1
        return int(part.get('end', NO_END) * scale) - int(part.get('begin', 0) * scale)

    return [part for part in parts if steps(part) >= 2]


def mismatch(schedulers: Sequence[_ParamScheduler], epochs: int, iters: int) -> str | None:
    """How the schedulers of an optimiser miss the end of its training, as text; None if they do not.

    Args:
        schedulers: The built ones.
        epochs: Length of the training.
        iters: The same in iterations.
    """
    decays = []
    for scheduler in schedulers:
        unit, length = ('epoch', epochs) if scheduler.by_epoch else ('iteration', iters)
        tolerance = 0 if scheduler.by_epoch else 1  # rounding of parts of an epoch
        name, end = type(scheduler).__name__, reach(scheduler)
        if end > length + tolerance:
            return f'{name} goes on to {unit} {end:g}, but training ends after {length}'
        if not is_warm_up(scheduler):
            text = f'{name} ends at {unit} {end:g}, and its last value stays until {unit} {length}'
            decays.append(text if 0 < end < length - tolerance else None)
    return decays[-1] if decays and all(decays) else None


def reach(scheduler: _ParamScheduler) -> float:
    """The step at which a scheduler would have its last value, which its ``end`` may cut off; 0 if there is none."""
    last = max([getattr(scheduler, 'T_max', 0), *getattr(scheduler, 'milestones', ())])
    end = scheduler.end if scheduler.end < NO_END else 0
    return max(end, scheduler.begin + last) if last < NO_END / 2 else end


def is_warm_up(scheduler: _ParamScheduler) -> bool:
    """Whether a scheduler ends in the full rate, so that it may end at any time."""
    if isinstance(scheduler, LinearParamScheduler):
        return scheduler.end_factor >= scheduler.start_factor
    return isinstance(scheduler, ConstantParamScheduler)
