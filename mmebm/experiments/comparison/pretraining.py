"""One pretraining of a comparison: run in a process of its own, and what is read from its checkpoints."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config

from mmebm.checkpoint import part, read_checkpoint
from mmebm.error_text import counted
from mmebm.experiments.processes import check_same, run_config
from mmebm.experiments.reporting import reporting, say
from mmebm.model_building import build
from mmebm.unpickling import unpickle

# What of a backbone the other methods do not have: the token in place of masked patches, and the norm behind the last
# map, which SparK's has not and which is initialised as the identity of normalised features.
ONLY_IN_PRETRAINING = {'mask_token'}
ONLY_DOWNSTREAM = {'spark': {'norm3.weight', 'norm3.bias'}}

# The hook changes nothing of the training, and so is not in its config, by which a folder knows its own.
FLAGS = ('--resume', '--cfg-options', 'default_hooks.cpu_time.type=mmebm.CPUTimeHook')


class Training(NamedTuple):
    """One pretraining of one method, and the epochs after which its features are evaluated."""

    method: str
    seed: int
    cfg: Config
    folder: Path
    points: list[int]
    rate: float | None = None  # the learning rate, where it is not the config's own

    @property
    def name(self) -> str:
        """As it is printed."""
        return training_name(self.method, self.seed, self.rate)

    def checkpoint(self, epoch: int) -> Path:
        """The checkpoint after an epoch, for evaluation alone."""
        return self.folder / f'point_{epoch}.pth'


def training_name(method: str, seed: int, rate: float | None) -> str:
    """A training as it is printed."""
    return f'{method}, seed {seed}' + (f', learning rate {rate:g}' if rate is not None else '')


def train(training: Training) -> None:
    """Train in a process of its own, resuming what was interrupted, unless it has been done.

    Raises:
        RuntimeError: It failed.
        ValueError: The folder holds a training with other options.
    """
    check_same(training.cfg, training.folder)
    if training.checkpoint(training.points[-1]).is_file():
        return
    say(f'{training.name}: {counted(training.points[-1], "epoch")}')
    with reporting(training.name, training.cfg, training.folder):
        run_config(['mmebm.commands.train'], training.cfg, training.folder, FLAGS)


def step_seconds(checkpoint: Path) -> list[float]:
    """Seconds of every training step up to a checkpoint, data loading included."""
    return _history(checkpoint)['train/time'].data[0].tolist()


def cpu_seconds(checkpoint: Path) -> float | None:
    """CPU seconds of all training steps up to a checkpoint, data loading included; None if some were not measured."""
    history = _history(checkpoint)
    steps = [history[name].data[0] for name in ('train/time', 'train/cpu_time') if name in history]
    if len({len(values) for values in steps}) != 1 or len(steps) < 2:
        return None
    total = float(steps[1].sum() + history['train/worker_cpu_time'].data[0].sum())
    return None if math.isnan(total) else total


def _history(checkpoint: Path) -> dict:
    """What a training has logged up to a checkpoint, by name."""
    return unpickle(checkpoint)['message_hub']['log_scalars']


def save_backbone(checkpoint: Path, downstream: Config, may_lack: set[str], path: Path) -> None:
    """Save a pretrained backbone with exactly the weights of the one that is evaluated.

    Raises:
        ValueError: It is another backbone.
    """
    backbone = build({key: value for key, value in downstream.model.backbone.items() if key != 'init_cfg'})
    backbone.init_weights()
    missing, unexpected = backbone.load_state_dict(part(read_checkpoint(checkpoint)), strict=False)
    if set(missing) != may_lack or set(unexpected) - ONLY_IN_PRETRAINING:
        raise ValueError(f'{checkpoint}: not the backbone of fine-tuning; missing {missing}, unexpected {unexpected}')
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in backbone.state_dict().items()}), path)
