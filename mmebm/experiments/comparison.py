"""Pretraining methods on equal terms: quality of their features against epochs, seconds and FLOPs.

    python benchmarks/compare.py --data FOLDER --budget epochs=30
    python benchmarks/compare.py --data shapes --methods ebm mae random --budget seconds=600 --seeds 1

FOLDER holds ``train/`` and ``test/`` or ``val/``, in each one folder a class. Each method is trained by its config in
``configs/peers/``, one after another, by the command that a user would type. At several points along the run, kNN and
linear probe are taken of the frozen features, and at the last ones fine-tuning, all in the same backbone and by one
config. Seconds are those of the training steps, data loading and compiling included; FLOPs are those of matrix products
and convolutions, two a multiply-add; memory is that of the tensors which a step makes, at its peak. BEiT's tokenizer is
trained for as many epochs as BEiT; its cost is a line of its own and not in BEiT's.

Run again, it goes on where it stopped. Leaves ``compare.json``, ``compare.md`` and three plots in ``--work-dir``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmebm.checkpoint import part, read_checkpoint
from mmebm.commands import make_shapes
from mmebm.datasets import ImageFolder
from mmebm.experiments.budget import parse_budget, set_epochs, spread_points
from mmebm.experiments.downstream import Run, initialized, perform, result_rows
from mmebm.experiments.frozen import frozen_metrics
from mmebm.experiments.processes import check_same, run_config, write_config_once
from mmebm.experiments.results import stamp, write_rows
from mmebm.experiments.tables import AXES, RANDOM, plot, progress, table
from mmebm.experiments.training_cost import Speed, measure_cost, measure_speed
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.options import config_folder, find_config, merge_options, replace_data_root
from mmebm.registry import MODELS

DOWNSTREAM = 'finetune'
TOKENIZER = 'tokenizer'
TOKENIZED = 'beit'  # the method that needs it
SIZE = '32px'
# What of a backbone the other methods do not have: the token in place of masked patches, and the norm behind the last
# map, which SparK's has not and which begins as the identity of normalised features.
ONLY_IN_PRETRAINING = {'mask_token'}
ONLY_DOWNSTREAM = {'spark': {'norm3.weight', 'norm3.bias'}}


class Training(NamedTuple):
    """One pretraining of one method, and at which epochs it is looked at."""

    method: str
    seed: int
    cfg: Config
    folder: Path
    points: list[int]

    @property
    def name(self) -> str:
        """For people."""
        return f'{self.method}, seed {self.seed}'


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, and write what is there after every training; ``--help`` lists the flags."""
    parser = _parser()
    args = parser.parse_args(argv)
    MMLogger.get_instance('compare', log_level='WARNING')  # every initialised weight is an INFO
    init_default_scope('mmpretrain')
    failed = []
    try:
        bench = Bench(args)
        for seed in range(args.seeds):
            for method in args.methods:
                try:
                    bench.run(method, seed)
                except RuntimeError as error:  # the others may still succeed
                    failed.append(f'{method}, seed {seed}: {error}')
                    print(failed[-1], file=sys.stderr)
                bench.report()
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    print((bench.work_dir / 'compare.md').read_text())
    if failed:
        sys.exit('\n'.join(['Failed:', *failed]))


class Bench:
    """Trainings and evaluations on one data set, with what is known of them in files of ``work_dir``.

    Args:
        args: The command line's.

    Raises:
        FileNotFoundError: The data or a config is missing.
        ValueError: The budget is none, no point is asked for, an option is of no method or changes nothing, train and
            test have other classes, or there are fewer images than ``--images`` or than a batch.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        configs = [TOKENIZER, DOWNSTREAM, *known_methods()]
        for key in args.cfg_options or {}:
            if key.partition('.')[0] not in configs:
                raise ValueError(f'--cfg-options {key}: must begin with one of {", ".join(configs)}')
        if args.points < 1 or args.finetune_points < 0:
            raise ValueError('--points must be at least 1, and --finetune-points at least 0')
        self.budget = parse_budget(args.budget)
        self.work_dir = Path(args.work_dir).resolve()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.data = write_shapes(self.work_dir, args.images) if args.data == 'shapes' else Path(args.data).resolve()
        self.test_prefix = find_test_folder(self.data)
        images = ImageFolder(str(self.data / 'train'), with_label=True)  # which training reads
        self.num_classes, self.num_images = len(images.CLASSES), len(images)
        self.downstream = self.config(DOWNSTREAM)
        check_classes(self.downstream, ['val_dataloader'])
        for method in self.methods():  # before anything is trained
            self.config(method)

    def methods(self) -> list[str]:
        """What will be trained."""
        tokenizer = [TOKENIZER] if TOKENIZED in self.args.methods else []
        return tokenizer + [method for method in self.args.methods if method != RANDOM]

    def config(self, method: str) -> Config:
        """A method's config on the data, with the options that name it."""
        suffix = SIZE if method == TOKENIZER else f'{self.args.backbone}_{SIZE}'
        cfg = Config.fromfile(find_config(f'{method}_{suffix}'))
        replace_data_root(cfg, cfg.data_root, str(self.data))
        for loader in (cfg.get('val_dataloader'), cfg.get('test_dataloader')):
            if loader is not None:
                loader.dataset.data_prefix = self.test_prefix
        if 'num_classes' in cfg.model.get('head', {}):
            cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = self.num_classes
        options = self.args.cfg_options or {}
        merge_options(cfg, {k.partition('.')[2]: v for k, v in options.items() if k.partition('.')[0] == method})
        total = self.num_images
        if self.args.images is not None:
            cfg.train_dataloader.dataset.indices = evenly_spaced(self.args.images, total)
            total = self.args.images
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
            self.cost(TOKENIZER)  # for the table
            path = tokenizer.folder / f'point_{tokenizer.points[-1]}.pth'
            training.cfg.model.target_generator.init_cfg.checkpoint = str(path)
        train(training)
        self.evaluate(training)

    def training(self, method: str, seed: int, epochs: int | None = None) -> Training:
        """The training of a method within the budget, or for so many epochs."""
        cfg = self.config(method)
        epochs = epochs or self.epochs(method)
        points = spread_points(epochs, self.args.points)
        set_epochs(cfg, epochs)
        folder = self.work_dir / method / f'seed_{seed}'
        cfg.randomness = dict(seed=seed)
        cfg.work_dir = str(folder)
        cfg.experiment_name = f'{method}_{seed}'
        cfg.custom_hooks.append(  # beside the one that a run goes on from
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
        """What has been measured for all seeds, so that a training that goes on keeps its number of epochs."""
        path = self.work_dir / method / f'{name}.json'
        cfg = self.config(method)
        if method == TOKENIZED:
            cfg.model.target_generator.init_cfg = None  # which may not be trained yet
        write_config_once(cfg, path.with_suffix(''))
        if not path.is_file():
            path.write_text(json.dumps(measure(cfg)))
        return json.loads(path.read_text())

    def evaluate(self, training: Training) -> None:
        """Write ``point_N.json``, a row of the result, for every point that has none, or none of fine-tuning yet.

        Raises:
            ValueError: The folder holds an evaluation by other data or options.
        """
        write_config_once(self.downstream, training.folder / 'evaluation')
        first_finetuned = max(len(training.points) - self.args.finetune_points, 0)
        for i, epoch in enumerate(training.points):
            path = training.folder / f'point_{epoch}.json'
            finetune = i >= first_finetuned
            if not path.is_file() or (finetune and json.loads(path.read_text())['finetune_top1'] is None):
                path.write_text(json.dumps(self.row(training, epoch, finetune)))

    def row(self, training: Training, epoch: int, finetune: bool) -> dict:
        """The figures of a training after so many epochs."""
        weights, seconds, gflops, rate = None, 0.0, 0.0, None
        if training.method != RANDOM:
            checkpoint = training.folder / f'point_{epoch}.pth'
            weights = training.folder / f'backbone_{epoch}.pth'
            save_backbone(checkpoint, self.downstream, ONLY_DOWNSTREAM.get(training.method, set()), weights)
            seconds = sum(step_seconds(checkpoint))
            cost = self.cost(training.method)
            batch = training.cfg.train_dataloader.batch_size
            gflops = cost['gflops_per_image'] * batch * cost['steps'] * epoch
            rate = training.cfg.optim_wrapper.optimizer.lr
        folder = training.folder / f'finetune_{epoch}'
        cfg = initialized(self.downstream, weights and str(weights), training.seed, folder)
        cfg.experiment_name = f'finetune_{training.method}_{training.seed}_{epoch}'
        scores = frozen_metrics(Config(cfg.to_dict()), 'mmebm.KNNAccuracy', 'mmebm.LinearProbeAccuracy')
        run = Run(DOWNSTREAM, training.method, training.seed, cfg, folder)
        return dict(
            method=training.method,
            backbone=self.args.backbone,
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
        folders = [self.work_dir / method for method in self.args.methods]
        paths = [path for folder in folders for path in folder.glob('seed_*/point_*.json')]
        rows = [json.loads(path.read_text()) for path in paths]
        rows.sort(key=lambda row: (self.args.methods.index(row['method']), row['seed'], row['epoch']))
        costs = {
            method: json.loads((self.work_dir / method / 'cost.json').read_text())
            for method in self.methods()
            if (self.work_dir / method / 'cost.json').is_file()
        }
        write_rows(self.work_dir / 'compare.json', rows)
        (self.work_dir / 'compare.md').write_text(f'{table(rows, costs)}\n\nAlong the run:\n\n{progress(rows)}\n')
        for axis in AXES:
            plot(rows, axis).savefig(self.work_dir / f'compare_{AXES[axis].lower()}.png', dpi=110)


def evenly_spaced(number: int, total: int) -> list[int]:
    """Indices of so many images of a data set that is sorted by class, as many of each class as can be.

    Raises:
        ValueError: There are fewer images.
    """
    if not 0 < number <= total:
        raise ValueError(f'--images {number}: the folder train/ has {total}')
    return [i * total // number for i in range(number)]


def write_shapes(work_dir: Path, images: int | None) -> Path:
    """The embedded data set as a folder: 10,000 images to train with, or so many, and 1,000 to test with."""
    images = images or 10_000
    folder = work_dir / f'shapes_{images}'
    if not folder.is_dir():
        parts = folder.with_suffix('.part')
        sizes = ['--train', str(images), '--val', '1000', '--image-size', '32']
        make_shapes.main([str(parts), '--layout', 'imagenet', *sizes])
        parts.rename(folder)
    return folder


def find_test_folder(data: Path) -> str:
    """``test`` or ``val``, whichever lies beside ``train``.

    Raises:
        FileNotFoundError: ``train``, or both of these are missing.
    """
    found = [name for name in ('test', 'val') if (data / name).is_dir()]
    if not (data / 'train').is_dir() or not found:
        raise FileNotFoundError(f'--data {data}: needs train/ and test/ or val/, in each one folder a class')
    return found[0]


def train(training: Training) -> None:
    """Train in a process of its own, from where it stopped, unless it has been done.

    Raises:
        RuntimeError: It failed.
        ValueError: The folder holds a training with other options.
    """
    check_same(training.cfg, training.folder)
    if (training.folder / f'point_{training.points[-1]}.pth').is_file():
        return
    print(f'{training.name}: {training.points[-1]} epochs', file=sys.stderr, flush=True)
    run_config(['mmebm.commands.train'], training.cfg, training.folder, ['--resume'])


def step_seconds(checkpoint: Path) -> list[float]:
    """Seconds of every training step up to a checkpoint, data loading included."""
    # Written by a process of ours, with the history of its log.
    history = torch.load(checkpoint, map_location='cpu', weights_only=False)['message_hub']['log_scalars']
    return history['train/time'].data[0].tolist()


def save_backbone(checkpoint: Path, downstream: Config, may_lack: set[str], path: Path) -> None:
    """Save a pretrained backbone with exactly the weights of the one that is evaluated.

    Raises:
        ValueError: It is another backbone.
    """
    backbone = MODELS.build({k: v for k, v in downstream.model.backbone.items() if k != 'init_cfg'})
    backbone.init_weights()
    missing, unexpected = backbone.load_state_dict(part(read_checkpoint(checkpoint)), strict=False)
    if set(missing) != may_lack or set(unexpected) - ONLY_IN_PRETRAINING:
        raise ValueError(f'{checkpoint}: not the backbone of fine-tuning; missing {missing}, unexpected {unexpected}')
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in backbone.state_dict().items()}), path)


def finetuned_top1(run: Run) -> float:
    """Top-1 in percent after fine-tuning, which is done unless it has been.

    Raises:
        RuntimeError: It failed.
    """
    if perform([run], jobs=1, gpus=1):
        raise RuntimeError(f'{run.name} failed, see {run.folder / "log.txt"}')
    return result_rows(run)[0]['value']


def known_methods() -> list[str]:
    """Those that have a config in ``configs/peers/``, for one of the backbones at least."""
    names = sorted(path.name.partition('_')[0] for path in (config_folder() / 'peers').glob(f'*_*_{SIZE}.py'))
    return [name for name in dict.fromkeys(names) if name != DOWNSTREAM]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage='%(prog)s --data FOLDER [...]'
    )
    parser.add_argument('--data', required=True, help='a folder of images, or: shapes')
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=[*known_methods(), RANDOM],
        default=['ebm', 'mae', 'simmim', 'beit', 'maskfeat', 'supervised', RANDOM],
        help='in this order',
    )
    parser.add_argument('--backbone', default='vit-w128', help='of the configs: vit-w128, vit-w128-d12, convnext-w32')
    parser.add_argument('--budget', default='epochs=30', help='epochs=N, seconds=S or flops=F for each training')
    parser.add_argument('--seeds', type=int, default=3, help='so many trainings of each method')
    parser.add_argument('--points', type=int, default=4, help='at so many points along the run features are evaluated')
    parser.add_argument('--finetune-points', type=int, default=1, help='at so many of them, the last ones, fine-tuned')
    parser.add_argument('--images', type=int, help='train with so many of the images')
    parser.add_argument('--work-dir', default='work_dirs/compare', help='where everything goes')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='METHOD.KEY=VALUE',
        help="options of one method's config, of the tokenizer's, or of finetune's",
    )
    return parser


if __name__ == '__main__':
    main()
