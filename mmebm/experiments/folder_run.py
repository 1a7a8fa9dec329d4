"""From a folder of images to a pretrained backbone in one call: config, training, export, report."""

import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.config_files import find_config
from mmebm.datasets import ImageFolder
from mmebm.datasets.listing import Listing, list_images
from mmebm.error_text import counted
from mmebm.experiments.folder_probe import add_probe
from mmebm.experiments.image_folders import TEST_FOLDERS
from mmebm.interchange import TARGETS, UnsupportedError, export
from mmebm.interchange.library import Library, require
from mmebm.launch.options import merge_options
from mmebm.launch.scripts import train
from mmebm.launch.start import find_latest
from mmebm.model_building import type_name
from mmebm.output_files import check_new
from mmebm.planning.config_facts import autocast_type, image_size, learning_rate, total_batch
from mmebm.planning.memory import Memory, available_memory, memory_of
from mmebm.planning.step_cost import step_cost
from mmebm.report import write_report

# The configs that a backbone is pretrained by.
BACKBONES = {
    'vit-tiny': 'ebm_vit-t_folder',
    'vit-small': 'ebm_vit-s_in1k',
    'vit-base': 'ebm_vit-b_in1k',
    'vit-large': 'ebm_vit-l_in1k',
    'swin-base': 'ebm_swin-b_in1k',
    'convnext-tiny': 'ebm_convnext-t_in1k',
    'resnet50': 'ebm_resnet50_in1k',
}

# Of a batch, which is no larger than the config's; and how many batches an epoch has at least, as far as the smallest
# batch allows.
SMALLEST, LARGEST, STEPS = 8, 256, 8

# Training images from which compiling pays, which takes minutes.
COMPILE_FROM = 1_000_000

LR = 'optim_wrapper.optimizer.lr'
EPOCHS = 'train_cfg.max_epochs'

# Of both shipped pipelines: to what an image's short edge is resized before the crop for a test.
EDGE = 256 / 224


@dataclass(frozen=True)
class FolderRun:
    """What is asked for.

    Attributes:
        folder: Of images; with ``train/`` and ``val/`` or ``test/``, the first is trained on.
        out: A new folder for all that the run leaves.
        backbone: One of ``BACKBONES``.
        epochs: Of the training.
        image_size: Height and width in pixels; None: as the config says.
        seed: Of initial weights, order of the images and corruptions.
        to: A target of ``mmebm-export``; None: timm if it is installed, else mmpretrain.
        options: Of the config, by dotted key; they win.
    """

    folder: Path
    out: Path
    backbone: str = 'vit-tiny'
    epochs: int = 100
    image_size: int | None = None
    seed: int = 0
    to: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """The config that is used."""
        return self.out / 'pretrain.py'

    def prepare(self) -> Config:
        """Choose, write the config, and say what was chosen.

        Raises:
            FileExistsError: ``out`` holds something.
            FileNotFoundError: There are no images.
            ValueError: The options do not fit the backbone, or no batch fits the memory.
        """
        listing = self.check()
        cfg = self.make_config(listing)
        self.out.mkdir(parents=True, exist_ok=True)
        probed = add_probe(cfg, listing.images, self.train_folder, self.test_folder, self.out, self.interval)
        cfg.dump(self.config_file)
        height, width = image_size(cfg)
        print(
            f'{counted(len(listing.images), "image")} of {self.train_folder}, {self.backbone} at {height} x {width} '
            f'pixels, {counted(self.epochs, "epoch")}, batches of {cfg.train_dataloader.batch_size}, learning rate '
            f'{cfg.optim_wrapper.optimizer.lr:.3g}; {probed}.\nConfig: {self.config_file}',
            flush=True,
        )
        return cfg

    def run(self) -> None:
        """Train by the config that ``prepare`` has left, probe, export, report, and say where everything is."""
        train([str(self.config_file), '--work-dir', str(self.out)])
        checkpoint = find_latest(self.out, {})
        if checkpoint is None:
            raise FileNotFoundError(f'{self.out}: the training left no checkpoint')
        print(f'Checkpoint: {checkpoint}')
        report = self.out / 'report.html'
        write_report([self.out], report)
        print(f'Report: {report}')
        self.export(checkpoint)

    def check(self) -> Listing:
        """The training images; raises as ``prepare`` does."""
        resume = f'tools/train.py {self.config_file} --work-dir {self.out} --resume'
        check_new(self.out, '--out', f'name a new one; or, to go on with an interrupted run there: {resume}')
        for name, value in dict(epochs=self.epochs, image_size=self.image_size or 1).items():
            if value < 1:
                raise ValueError(f'--{name.replace("_", "-")} must be at least 1, not {value}')
        if EPOCHS in self.options:
            raise ValueError(f'--cfg-options {EPOCHS}={self.options[EPOCHS]}: give --epochs, which more depends on')
        if isinstance(target := TARGETS.get(self.to), Library):
            require(self.to, [target.name])
        if not self.folder.is_dir():
            raise FileNotFoundError(f'"{self.folder}" is no folder')
        ImageFolder(str(self.train_folder))  # says what it finds, and raises if that is nothing
        listing = list_images(str(self.train_folder))
        if len(listing.images) < SMALLEST:
            raise ValueError(
                f'{self.train_folder}: {counted(len(listing.images), "image")}; at least {SMALLEST} are needed'
            )
        return listing

    @property
    def train_folder(self) -> Path:
        """What is trained on."""
        return self.folder / 'train' if self.test_folder else self.folder

    @property
    def test_folder(self) -> Path | None:
        """Images beside ``train/``; None if the folder has no such parts."""
        parts = [self.folder / name for name in TEST_FOLDERS]
        return next((part for part in parts if (self.folder / 'train').is_dir() and part.is_dir()), None)

    @property
    def interval(self) -> int:
        """Epochs between checkpoints, and between probes: ten of a run; an epoch of few images takes seconds."""
        return max(1, self.epochs // 10)

    def make_config(self, listing: Listing) -> Config:
        """The config for these images and this machine."""
        cfg = Config.fromfile(find_config(BACKBONES[self.backbone]))
        on_gpu = torch.cuda.is_available()
        images = len(listing.images)
        compiles = on_gpu and images * self.epochs >= COMPILE_FROM and shutil.which('c++') is not None
        if self.image_size is not None:
            resize(cfg, self.image_size)
        cfg.model.training_step.compile = compiles
        cfg.train_dataloader.num_workers = workers(on_gpu)
        largest = min(LARGEST, cfg.train_dataloader.batch_size)
        cfg.train_dataloader.batch_size = min(largest, max(SMALLEST, power_of_two(images / STEPS)))
        cfg.optim_wrapper.accumulative_counts = 1
        cfg.default_hooks.checkpoint.interval = self.interval
        cfg.randomness = dict(seed=self.seed)
        folders = dict(data_root=str(self.train_folder), test_data_root=str(self.test_folder or self.folder))
        merge_options(cfg, {**folders, EPOCHS: self.epochs, **self.options})
        fit_batch(cfg, on_gpu)
        if LR not in self.options:
            cfg.optim_wrapper.optimizer.lr = learning_rate(cfg, 1)
        cfg.auto_scale_lr.base_batch_size = total_batch(cfg, 1)  # for which the rate is now
        return cfg

    def export(self, checkpoint: Path) -> None:
        """Take the backbone to another library."""
        logger = MMLogger.get_current_instance()
        logger.setLevel('WARNING')  # each weight that is loaded is an INFO
        to = self.to or ('timm' if importlib.util.find_spec('timm') else 'mmpretrain')
        for target in dict.fromkeys((to, 'mmpretrain')):
            out = self.out / f'backbone_{target}'
            try:
                result = export(checkpoint, target, out)
            except (UnsupportedError, ImportError, ValueError) as error:
                print(f'Not exported to {target}: {error}')
                continue
            print(f'Backbone for {target}: {out} (features differ by {result.difference:.1e} at most)')
            return


def workers(on_gpu: bool) -> int:
    """Processes that load images. Without a GPU they compete with the training, and each epoch starts them again."""
    cores = os.cpu_count() or 1
    return min(8, max(1, cores - 1) if on_gpu else cores // 4)


def resize(cfg: Config, size: int) -> None:
    """Let a config train and test on images of a size.

    Raises:
        ValueError: It is no multiple of the patches of backbone or corruption.
    """
    for section in ('train_dataloader', 'test_dataloader'):
        for step in cfg[section].dataset.pipeline:
            name = type_name(step)
            if name == 'RandomResizedCrop':
                step['scale'] = size
            elif name == 'ResizeEdge':
                step['scale'] = round(size * EDGE)
            elif name == 'CenterCrop':
                step['crop_size'] = size
            elif name == 'CorruptedPair' and size % step['corruption']['patch_size']:
                raise ValueError(
                    f'--image-size {size} is no multiple of {step["corruption"]["patch_size"]}, the patches'
                )
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = size


def fit_batch(cfg: Config, on_gpu: bool) -> None:
    """Halve the batch until a step fits the memory.

    Raises:
        ValueError: The smallest does not.
    """
    available = torch.cuda.mem_get_info()[1] if on_gpu else available_memory('cpu')
    while not memory_on(cfg, on_gpu, available).fits:
        if cfg.train_dataloader.batch_size <= SMALLEST:
            raise ValueError(
                f'not even batches of {SMALLEST} fit this machine: choose a smaller backbone or --image-size'
            )
        cfg.train_dataloader.batch_size //= 2


def memory_on(cfg: Config, on_gpu: bool, available: int) -> Memory:
    """Peak memory of a config on one device, as ``mmebm-plan`` predicts it."""
    logger = MMLogger.get_current_instance()
    logger.setLevel('WARNING')  # mmengine logs each parameter's weight decay
    dtype = autocast_type(cfg) if on_gpu else torch.float32
    return memory_of(cfg, step_cost(cfg, image_size(cfg), dtype, on_gpu), 1, 1.0, available)


def power_of_two(number: float) -> int:
    """The largest power of two that is at most a number."""
    return 1 << max(0, int(number).bit_length() - 1)
