"""Pretraining methods on equal terms: quality of their features against epochs, seconds and FLOPs.

Each method is trained by its config in ``configs/peers/``, one after another, by the command that a user would type. At
several points of the run, the frozen features are evaluated by kNN and a linear probe, and at the last ones by
fine-tuning, all with the same backbone and config. Seconds are those of the training steps, data loading and compiling
included; CPU seconds are those of all their threads and data loading, but not of the compiler's own workers; FLOPs are
those of matrix products and convolutions, two per multiply-add; memory is that of the tensors which a step makes, at
its peak. The tokenizer of BEiT and CIM is trained for as many epochs as they are; its cost is a line of its own and not
in theirs.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmebm.config_files import find_config
from mmebm.datasets import ImageFolder
from mmebm.experiments.comparison.budget import CLOCKS, parse_budget, set_epochs, spread_points
from mmebm.experiments.comparison.held_out import HeldOut, check_committed
from mmebm.experiments.comparison.pretraining import (
    ONLY_DOWNSTREAM,
    Training,
    cpu_seconds,
    save_backbone,
    step_seconds,
    train,
    training_name,
)
from mmebm.experiments.comparison.quick import MAX_IMAGES, shorten
from mmebm.experiments.comparison.reports import check_kind, kind_of, read_points, write_report
from mmebm.experiments.comparison.scoring import Scoring
from mmebm.experiments.comparison.selection import CrossValidation, choose, read_selection, write_selection
from mmebm.experiments.comparison.settings import (
    DOWNSTREAM,
    RATE,
    SIZE,
    TOKENIZED,
    TOKENIZER,
    Comparison,
    check_settings,
)
from mmebm.experiments.comparison.tables import RANDOM
from mmebm.experiments.comparison.tokenizer_config import tokenizer_of, use_untrained
from mmebm.experiments.downstream.tasks import options_of
from mmebm.experiments.downstream.trainings import Run, with_weights
from mmebm.experiments.image_folders import evenly_spaced, find_data, find_test_folder, find_train_folder
from mmebm.experiments.processes import check_same, write_config_once
from mmebm.experiments.reporting import say
from mmebm.experiments.results import stamp, write_json
from mmebm.experiments.training_cost import Speed, measure_cost, measure_cpu_speed, measure_speed
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.options import merge_options, replace_data_root


class Bench:
    """Trainings and evaluations on one data set; all that is known of them is in files of ``work_dir``.

    Args:
        comparison: What is compared.

    Raises:
        FileNotFoundError: The data or a config is missing.
        ValueError: The budget is none, no point is asked for, an option is of no method or changes nothing, train and
            test have other classes, there are fewer images than asked for or than in a batch, settings do not go
            together, the final figures would be of no commit, or the work dir holds figures of another kind.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.failed: set[tuple[str, float | None, int]] = set()  # method, learning rate and seed
        check_settings(comparison)
        if comparison.final:
            check_committed()
        self.budget = parse_budget(comparison.budget)
        self.work_dir = comparison.work_dir.resolve()
        check_kind(comparison, self.work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.rates = self.learning_rates()
        self.images = comparison.images or (MAX_IMAGES if comparison.quick else None)
        self.data = find_data(comparison.data, self.images, self.work_dir)
        test = None if comparison.select or comparison.final else find_test_folder(self.data)
        images = ImageFolder(str(find_train_folder(self.data)), with_label=True)  # which training reads
        self.num_classes, self.num_images = len(images.CLASSES), len(images)
        if self.images != comparison.images:
            self.images = min(MAX_IMAGES, self.num_images)
        self.scoring = self.make_scoring(test)
        self.downstream = self.config(DOWNSTREAM)
        check_classes(self.downstream, ['val_dataloader'])
        for method in self.trained():  # before anything is trained
            self.config(method)
        if comparison.select or comparison.final:  # one table is of the same images, and of one fine-tuning
            write_config_once(self.downstream, self.work_dir / kind_of(comparison))

    def learning_rates(self) -> dict[str, list[float | None]]:
        """Those that each method is trained with; None for its config's own, and where nothing is trained.

        Raises:
            FileNotFoundError: The selection is missing.
            ValueError: It lacks a method.
        """
        settings = self.comparison
        rates: dict[str, list[float | None]] = {method: [None] for method in settings.methods}
        if settings.selection:
            chosen = read_selection(settings.selection, self.pretrained(), settings.backbone)
            rates |= {method: [rate] for method, rate in chosen.items()}
        if settings.learning_rates:
            rates |= {method: [*settings.learning_rates] for method in self.pretrained()}
        return rates

    def make_scoring(self, test: str | None) -> Scoring:
        """What the features are scored on: the training images, a folder that is held out, or the test folder."""
        train = self.data / 'train'
        indices = None if self.images is None else evenly_spaced(self.images, self.num_images)
        if self.comparison.select:
            return CrossValidation(train, indices)
        if self.comparison.final:
            return HeldOut(Path(self.comparison.final), train, indices)
        return Scoring(self.data / str(test), indices)

    def run_all(self) -> Iterator[str]:
        """Train and evaluate each method with each seed, and report after each; yields what failed."""
        runs = [(method, rate) for method in self.comparison.methods for rate in self.rates[method]]
        for seed in self.comparison.seed_numbers:
            for method, rate in runs:
                try:
                    self.run(method, seed, rate)
                except RuntimeError as error:  # the others may still succeed
                    self.failed.add((method, self.learning_rate(method, rate), seed))
                    yield f'{training_name(method, seed, rate)}: {error}'
                self.report()

    def trained(self) -> list[str]:
        """Names of all configs that train something before fine-tuning."""
        tokenizer = [TOKENIZER] if set(TOKENIZED) & set(self.comparison.methods) else []
        return tokenizer + self.pretrained()

    def pretrained(self) -> list[str]:
        """The methods that train something before fine-tuning."""
        return [method for method in self.comparison.methods if method != RANDOM]

    def config(self, method: str) -> Config:
        """A method's config on the data, with the options that name it."""
        suffix = SIZE if method == TOKENIZER else f'{self.comparison.backbone}_{SIZE}'
        cfg = Config.fromfile(find_config(f'{method}_{suffix}'))
        replace_data_root(cfg, cfg.data_root, str(self.data))
        self.scoring.use_in(cfg)
        if 'num_classes' in cfg.model.get('head', {}):
            cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = self.num_classes
        indices = self.scoring.trained(method)
        total = self.num_images if indices is None else len(indices)
        if self.comparison.quick:
            shorten(cfg, method == DOWNSTREAM, total)
        merge_options(cfg, options_of(method, self.comparison.cfg_options))
        if indices is not None:
            cfg.train_dataloader.dataset.indices = indices
        if total < cfg.train_dataloader.batch_size:
            raise ValueError(f'{self.data / "train"}: {total} images are fewer than a batch')
        return cfg

    def run(self, method: str, seed: int, rate: float | None = None) -> None:
        """Train one method, with a learning rate or its config's own, and evaluate it, unless that has been done.

        Raises:
            RuntimeError: A training failed.
            ValueError: The folder holds a training with other options.
        """
        if method == RANDOM:
            self.evaluate(Training(RANDOM, seed, self.downstream, self.work_dir / RANDOM / f'seed_{seed}', [0]))
            return
        training = self.training(method, seed, rate=rate)
        if method in TOKENIZED:
            tokenizer = self.training(TOKENIZER, seed, epochs=training.points[-1])
            train(tokenizer)
            tokenizer_of(training.cfg).init_cfg.checkpoint = str(tokenizer.checkpoint(tokenizer.points[-1]))
        train(training)
        self.evaluate(training)

    def training(self, method: str, seed: int, epochs: int | None = None, rate: float | None = None) -> Training:
        """The training of a method for a number of epochs, by default all that the budget allows."""
        cfg = self.config(method)
        epochs = epochs or self.epochs(method)
        points = spread_points(epochs, self.comparison.points)
        set_epochs(cfg, epochs, self.cost(method)['steps'])
        folder = self.work_dir / method / f'seed_{seed}'
        if rate is not None:
            cfg.merge_from_dict({RATE: rate})
        if self.comparison.learning_rates and method != TOKENIZER:
            folder = self.work_dir / method / f'lr_{rate:g}' / f'seed_{seed}'
        if method == TOKENIZER and self.budget.kind != 'epochs':  # methods that read it may have different epochs
            folder = self.work_dir / method / f'epochs_{epochs}' / f'seed_{seed}'
        cfg.randomness = dict(seed=seed)
        cfg.work_dir = str(folder)
        cfg.experiment_name = f'{method}_{seed}'
        cfg.default_hooks.checkpoint.max_keep_ckpts = 1
        cfg.custom_hooks.append(  # beside the one whose checkpoint a run resumes from
            dict(
                type='CheckpointHook',
                interval=points[0],
                save_optimizer=False,
                save_param_scheduler=False,
                filename_tmpl='point_{}.pth',
                priority='LOW',  # so that `last_checkpoint` names the other
                backend_args=dict(backend='mmebm.atomic'),
            )
        )
        return Training(method, seed, cfg, folder, points, rate)

    def epochs(self, method: str) -> int:
        """How many the budget allows a method."""
        cost = self.cost(method)
        images = cost['steps'] * self.config(method).train_dataloader.batch_size
        return self.budget.epochs(images, 1e9 * cost['gflops_per_image'], self.speed(method))

    def speed(self, method: str) -> Speed | None:
        """A method's, by the clock of the budget, if it has one."""
        if self.budget.kind not in CLOCKS:
            return None
        if self.budget.kind == 'seconds':
            return Speed(*self.known(method, 'speed', measure_speed))
        return Speed(*self.known(method, 'cpu_speed', measure_cpu_speed))

    def learning_rate(self, method: str, rate: float | None) -> float | None:
        """One of ``learning_rates``, or the config's own for it; None where nothing is trained."""
        return rate if method == RANDOM or rate is not None else self.config(method).optim_wrapper.optimizer.lr

    def cost(self, method: str) -> dict:
        """See ``measure_cost``."""
        return self.known(method, 'cost', measure_cost)

    def known(self, method: str, name: str, measure: Callable[[Config], Any]) -> Any:
        """A measurement for all seeds, made once, so that a resumed training keeps its number of epochs."""
        path = self.work_dir / method / f'{name}.json'
        cfg = self.config(method)
        if method in TOKENIZED:
            use_untrained(cfg)  # the trained one may not be there yet
        if method == DOWNSTREAM:
            cfg.model.backbone.init_cfg = None
        folder = path.with_suffix('')
        check_same(cfg, folder)
        if not path.is_file():
            say(f'{method}: measuring its {name.replace("_", " ")}')
            measured = measure(cfg)  # fails before anything is written, if the config is wrong
            write_config_once(cfg, folder)
            write_json(path, measured)
        return json.loads(path.read_text())

    def evaluate(self, training: Training) -> None:
        """Write ``point_N.json``, a row of the result, for every point that has none, or none of fine-tuning yet.

        Raises:
            ValueError: The folder holds an evaluation by other data or options.
        """
        write_config_once(self.downstream, training.folder / 'evaluation')
        first_finetuned = max(len(training.points) - self.comparison.finetune_points, 0)
        for i, epoch in enumerate(training.points):
            path = training.folder / f'point_{epoch}.json'
            finetune = i >= first_finetuned
            if not path.is_file() or (finetune and json.loads(path.read_text())['finetune_top1'] is None):
                write_json(path, self.row(training, epoch, finetune))

    def row(self, training: Training, epoch: int, finetune: bool) -> dict:
        """The figures of a training after a number of epochs."""
        weights, seconds, gflops, rate = None, 0.0, 0.0, None
        cpu: float | None = 0.0
        if training.method != RANDOM:
            checkpoint = training.checkpoint(epoch)
            weights = training.folder / f'backbone_{epoch}.pth'
            save_backbone(checkpoint, self.downstream, ONLY_DOWNSTREAM.get(training.method, set()), weights)
            seconds, cpu = sum(step_seconds(checkpoint)), cpu_seconds(checkpoint)
            cost = self.cost(training.method)
            gflops = cost['gflops_per_image'] * training.cfg.train_dataloader.batch_size * cost['steps'] * epoch
            rate = training.cfg.optim_wrapper.optimizer.lr
        folder = training.folder / f'finetune_{epoch}'
        cfg = with_weights(self.downstream, weights and str(weights), training.seed, folder)
        say(f'{training.name}: evaluating the features after epoch {epoch}')
        cfg.experiment_name = f'finetune_{training.method}_{training.seed}_{epoch}'
        run = Run(DOWNSTREAM, training.method, training.seed, cfg, folder)
        return dict(
            method=training.method,
            backbone=self.comparison.backbone,
            seed=training.seed,
            epoch=epoch,
            seconds=round(seconds, 2),
            cpu_seconds=cpu if cpu is None else round(cpu, 2),
            gflops=round(gflops, 3),
            **self.scoring.score(run, epoch, finetune),
            learning_rate=rate,
            **stamp(),
        )

    def report(self) -> None:
        """Write rows, tables and plots of all that has been evaluated; with ``select``, also what is chosen."""
        methods = self.comparison.methods
        if not self.comparison.select:
            write_report(self.work_dir, methods, self.trained(), self.comparison.reference or methods[0])
            return
        tried = {method: [self.learning_rate(method, rate) for rate in self.rates[method]] for method in methods}
        rows = read_points(self.work_dir, methods)
        chosen = choose(rows, tried, self.comparison.seed_numbers, self.failed)
        write_selection(self.work_dir, rows, chosen, self.comparison.backbone, methods)
