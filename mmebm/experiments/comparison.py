"""Pretraining methods on equal terms: quality of their features against epochs, seconds and FLOPs.

Each method is trained by its config in ``configs/peers/``, one after another, by the command that a user would type. At
several points of the run, the frozen features are evaluated by kNN and a linear probe, and at the last ones by
fine-tuning, all with the same backbone and config. Seconds are those of the training steps, data loading and compiling
included; FLOPs are those of matrix products and convolutions, two per multiply-add; memory is that of the tensors which
a step makes, at its peak. BEiT's tokenizer is trained for as many epochs as BEiT; its cost is a line of its own and not
in BEiT's.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmebm.config_files import config_folder, find_config
from mmebm.datasets import ImageFolder
from mmebm.experiments.budget import parse_budget, set_epochs, spread_points
from mmebm.experiments.downstream import Run, perform, result_rows, with_weights
from mmebm.experiments.frozen import frozen_metrics
from mmebm.experiments.image_folders import datasets_of, evenly_spaced, find_data, find_test_folder
from mmebm.experiments.pretraining import ONLY_DOWNSTREAM, Training, save_backbone, step_seconds, train
from mmebm.experiments.processes import check_same, write_config_once
from mmebm.experiments.quick import MAX_IMAGES, shorten
from mmebm.experiments.reporting import say
from mmebm.experiments.results import stamp, write_rows
from mmebm.experiments.tables import AXES, RANDOM, plot, progress, table
from mmebm.experiments.tasks import check_names, options_of
from mmebm.experiments.training_cost import Speed, measure_cost, measure_speed
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.options import merge_options, replace_data_root

DOWNSTREAM = 'finetune'
TOKENIZER = 'tokenizer'
TOKENIZED = 'beit'  # the method that needs it
SIZE = '32px'
METHODS = ('ebm', 'ebm-patches', 'mae', 'simmim', 'beit', 'maskfeat', 'supervised', RANDOM)


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        data: A folder that holds ``train/`` and ``test/`` or ``val/``, in each one folder per class; or ``shapes``.
        methods: Of ``known_methods()``, or ``random``, in this order.
        backbone: As in the configs' names.
        budget: Of each training: ``epochs=N``, ``seconds=S`` or ``flops=F``.
        seeds: Trainings of each method.
        points: How many times along a run its frozen features are evaluated.
        finetune_points: How many of these points, the last ones, are fine-tuned as well.
        images: How many of the training images are used; None: all.
        work_dir: Where everything goes.
        cfg_options: Options of one method's config, of the tokenizer's or of fine-tuning's, by ``METHOD.KEY``.
        quick: Whether to leave out what takes long: compiling, most images and most epochs of fine-tuning.
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


class Bench:
    """Trainings and evaluations on one data set; all that is known of them is in files of ``work_dir``.

    Args:
        comparison: What is compared.

    Raises:
        FileNotFoundError: The data or a config is missing.
        ValueError: The budget is none, no point is asked for, an option is of no method or changes nothing, train and
            test have other classes, or there are fewer images than asked for or than in a batch.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        check_options(comparison.cfg_options)
        if comparison.points < 1 or comparison.finetune_points < 0:
            raise ValueError('--points must be at least 1, and --finetune-points at least 0')
        self.budget = parse_budget(comparison.budget)
        self.work_dir = comparison.work_dir.resolve()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.images = comparison.images or (MAX_IMAGES if comparison.quick else None)
        self.data = find_data(comparison.data, self.images, self.work_dir)
        self.test_prefix = find_test_folder(self.data)
        images = ImageFolder(str(self.data / 'train'), with_label=True)  # which training reads
        self.num_classes, self.num_images = len(images.CLASSES), len(images)
        if self.images != comparison.images:
            self.images = min(MAX_IMAGES, self.num_images)
        self.downstream = self.config(DOWNSTREAM)
        check_classes(self.downstream, ['val_dataloader'])
        for method in self.trained():  # before anything is trained
            self.config(method)

    def run_all(self) -> Iterator[str]:
        """Train and evaluate each method with each seed, and report after each; yields what failed."""
        for seed in range(self.comparison.seeds):
            for method in self.comparison.methods:
                try:
                    self.run(method, seed)
                except RuntimeError as error:  # the others may still succeed
                    yield f'{method}, seed {seed}: {error}'
                self.report()

    def trained(self) -> list[str]:
        """Names of all configs that train something before fine-tuning."""
        tokenizer = [TOKENIZER] if TOKENIZED in self.comparison.methods else []
        return tokenizer + [method for method in self.comparison.methods if method != RANDOM]

    def config(self, method: str) -> Config:
        """A method's config on the data, with the options that name it."""
        suffix = SIZE if method == TOKENIZER else f'{self.comparison.backbone}_{SIZE}'
        cfg = Config.fromfile(find_config(f'{method}_{suffix}'))
        replace_data_root(cfg, cfg.data_root, str(self.data))
        for loader in (cfg.get('val_dataloader'), cfg.get('test_dataloader')):
            for dataset in datasets_of(loader):
                dataset.data_prefix = self.test_prefix
        if 'num_classes' in cfg.model.get('head', {}):
            cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = self.num_classes
        total = self.num_images if self.images is None else self.images
        if self.comparison.quick:
            shorten(cfg, method == DOWNSTREAM, total)
        merge_options(cfg, options_of(method, self.comparison.cfg_options))
        if self.images is not None:
            cfg.train_dataloader.dataset.indices = evenly_spaced(self.images, self.num_images)
        if total < cfg.train_dataloader.batch_size:
            raise ValueError(f'{self.data / "train"}: {total} images are fewer than a batch')
        return cfg

    def run(self, method: str, seed: int) -> None:
        """Train one method and evaluate it, as far as that has not been done.

        Raises:
            RuntimeError: A training failed.
            ValueError: The folder holds a training with other options.
        """
        if method == RANDOM:
            self.evaluate(Training(RANDOM, seed, self.downstream, self.work_dir / RANDOM / f'seed_{seed}', [0]))
            return
        training = self.training(method, seed)
        if method == TOKENIZED:
            tokenizer = self.training(TOKENIZER, seed, epochs=training.points[-1])
            train(tokenizer)
            path = tokenizer.checkpoint(tokenizer.points[-1])
            training.cfg.model.target_generator.init_cfg.checkpoint = str(path)
        train(training)
        self.evaluate(training)

    def training(self, method: str, seed: int, epochs: int | None = None) -> Training:
        """The training of a method for a number of epochs, by default all that the budget allows."""
        cfg = self.config(method)
        epochs = epochs or self.epochs(method)
        points = spread_points(epochs, self.comparison.points)
        set_epochs(cfg, epochs, self.cost(method)['steps'])
        folder = self.work_dir / method / f'seed_{seed}'
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
            )
        )
        return Training(method, seed, cfg, folder, points)

    def epochs(self, method: str) -> int:
        """How many the budget allows a method."""
        cost = self.cost(method)
        images = cost['steps'] * self.config(method).train_dataloader.batch_size
        speed = Speed(*self.known(method, 'speed', measure_speed)) if self.budget.kind == 'seconds' else None
        return self.budget.epochs(images, 1e9 * cost['gflops_per_image'], speed)

    def cost(self, method: str) -> dict:
        """See ``measure_cost``."""
        return self.known(method, 'cost', measure_cost)

    def known(self, method: str, name: str, measure: Callable[[Config], Any]) -> Any:
        """A measurement for all seeds, made once, so that a resumed training keeps its number of epochs."""
        path = self.work_dir / method / f'{name}.json'
        cfg = self.config(method)
        if method == TOKENIZED:
            cfg.model.target_generator.init_cfg = None  # which may not be trained yet
        if method == DOWNSTREAM:
            cfg.model.backbone.init_cfg = None
        folder = path.with_suffix('')
        check_same(cfg, folder)
        if not path.is_file():
            say(f'{method}: measuring its {name.replace("_", " ")}')
            measured = measure(cfg)  # fails before anything is written, if the config is wrong
            write_config_once(cfg, folder)
            path.write_text(json.dumps(measured))
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
                path.write_text(json.dumps(self.row(training, epoch, finetune)))

    def row(self, training: Training, epoch: int, finetune: bool) -> dict:
        """The figures of a training after a number of epochs."""
        weights, seconds, gflops, rate = None, 0.0, 0.0, None
        if training.method != RANDOM:
            checkpoint = training.checkpoint(epoch)
            weights = training.folder / f'backbone_{epoch}.pth'
            save_backbone(checkpoint, self.downstream, ONLY_DOWNSTREAM.get(training.method, set()), weights)
            seconds = sum(step_seconds(checkpoint))
            cost = self.cost(training.method)
            gflops = cost['gflops_per_image'] * training.cfg.train_dataloader.batch_size * cost['steps'] * epoch
            rate = training.cfg.optim_wrapper.optimizer.lr
        folder = training.folder / f'finetune_{epoch}'
        cfg = with_weights(self.downstream, weights and str(weights), training.seed, folder)
        say(f'{training.name}: evaluating the features after epoch {epoch}')
        cfg.experiment_name = f'finetune_{training.method}_{training.seed}_{epoch}'
        scores = frozen_metrics(Config(cfg.to_dict()), 'mmebm.KNNAccuracy', 'mmebm.LinearProbeAccuracy')
        run = Run(DOWNSTREAM, training.method, training.seed, cfg, folder)
        return dict(
            method=training.method,
            backbone=self.comparison.backbone,
            seed=training.seed,
            epoch=epoch,
            seconds=round(seconds, 2),
            gflops=round(gflops, 3),
            knn_top1=round(scores['frozen/knn_top1'], 3),
            linear_top1=round(scores['frozen/linear_top1'], 3),
            finetune_top1=finetuned_top1(run) if finetune else None,
            learning_rate=rate,
            **stamp(),
        )

    def report(self) -> None:
        """Write rows, table and plots of all that has been evaluated."""
        methods = self.comparison.methods
        paths = [path for method in methods for path in (self.work_dir / method).glob('seed_*/point_*.json')]
        rows = [json.loads(path.read_text()) for path in paths]
        rows.sort(key=lambda row: (methods.index(row['method']), row['seed'], row['epoch']))
        files = {method: self.work_dir / method / 'cost.json' for method in self.trained()}
        costs = {method: json.loads(file.read_text()) for method, file in files.items() if file.is_file()}
        write_rows(self.work_dir / 'compare.json', rows)
        (self.work_dir / 'compare.md').write_text(f'{table(rows, costs)}\n\nAlong the run:\n\n{progress(rows)}\n')
        for axis in AXES:
            plot(rows, axis).savefig(self.work_dir / f'compare_{AXES[axis].lower()}.png', dpi=110)


def check_options(options: Mapping[str, Any]) -> None:
    """Check that every option names a config.

    Raises:
        ValueError: Names the first that does not.
    """
    check_names(options, [TOKENIZER, DOWNSTREAM, *known_methods()])


def known_methods() -> list[str]:
    """Those that have a config in ``configs/peers/``, for one of the backbones at least."""
    names = sorted(path.name.partition('_')[0] for path in (config_folder() / 'peers').glob(f'*_*_{SIZE}.py'))
    return [name for name in dict.fromkeys(names) if name != DOWNSTREAM]


def finetuned_top1(run: Run) -> float:
    """Top-1 in percent after fine-tuning, which is done unless it has been.

    Raises:
        RuntimeError: It failed.
    """
    if perform([run], jobs=1, gpus=1):
        raise RuntimeError(f'{run.name} failed, see {run.folder / "log.txt"}')
    return result_rows(run)[0]['value']
