"""How far metrics of frozen features without labels follow those with labels, over the runs of comparisons.

    python -m benchmarks.label_free WORK_DIR...
    python -m benchmarks.label_free WORK_DIR... --data FOLDER

Work dirs are those of ``tools/compare.py``: each ``point_N.json`` in them, the scores of a run after N epochs, needs
its ``backbone_N.pth`` and ``evaluation.py`` beside it, which also names the images, unless ``--data`` does. They are
images that the accuracies were scored on, not those of training. Views, for LiDAR, are images with 60% of their
patches masked.

Writes ``results/label_free.json``, Spearman's rank correlation over all runs and over those of a method, and
``results/label_free_runs.json``, what was measured of each run.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from scipy.stats import spearmanr

from benchmarks.output import RESULTS
from mmebm.engine.evaluating import evaluating
from mmebm.evaluation.frozen_features import samples_of
from mmebm.experiments.downstream.frozen import score
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows
from mmebm.model_building import build_initialized

METRICS = {'rankme': 'mmebm.RankMe', 'alpha_req': 'mmebm.AlphaReQ', 'lidar': 'mmebm.LiDAR'}
AGAINST = ('linear_top1', 'knn_top1', 'finetune_top1')
LEAST_RUNS = 5


def find_points(folders: Sequence[Path]) -> list[Path]:
    """The files of scores whose weights are there.

    Raises:
        FileNotFoundError: A folder is missing, or there are too few.
    """
    points: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder}: no such folder; give work dirs of tools/compare.py')
        points += sorted(folder.rglob('point_*.json'))
    whole = [point for point in points if weights_of(point).is_file() and config_of(point).is_file()]
    if len(whole) < LEAST_RUNS:
        raise FileNotFoundError(
            f'{len(whole)} of {len(points)} point_N.json in {", ".join(map(str, folders))} have backbone_N.pth and '
            f'evaluation.py beside them; a rank correlation needs {LEAST_RUNS} or more'
        )
    return whole


def weights_of(point: Path) -> Path:
    """The backbone that was scored."""
    return point.with_name(f'backbone_{point.stem.partition("_")[2]}.pth')


def config_of(point: Path) -> Path:
    """The classifier's config by which it was scored."""
    return point.with_name('evaluation.py')


def measure(point: Path, data: Path | None, images: int, views: int) -> dict[str, float]:
    """The metrics, by name, of a run after some epochs."""
    cfg = Config.fromfile(config_of(point))
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights_of(point)), prefix='backbone.')
    queries = cfg.val_dataloader
    queries.update(collate_fn=dict(type='default_collate'), num_workers=0, persistent_workers=False)
    if data is not None:
        queries.dataset.update(data_root=str(data), data_prefix='')
    patch = cfg.model.backbone.patch_size
    mask = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=patch, seed=0)
    queries.dataset.pipeline.insert(-1, dict(type='mmebm.CorruptedPair', corruption=mask, num_views=views))
    size = len(Runner.build_dataloader(queries).dataset)
    queries.dataset.indices = spread(size, images)
    loader = Runner.build_dataloader(queries)
    model = build_initialized(cfg)
    with evaluating(model):
        metrics = score(samples_of(model, loader, 'test', labelled=False), *METRICS.values())
    return {name: round(metrics[f'frozen/{name}'], 4) for name in METRICS}


def spread(size: int, number: int) -> list[int]:
    """Up to ``number`` indices, evenly over a data set, whose images are ordered by class."""
    number = min(size, number)
    return [i * size // number for i in range(number)]


def correlations(runs: Sequence[dict]) -> Iterator[dict]:
    """Rows ``metric, against, spearman, runs, of``, over all runs and over those of a method, if there are enough."""
    for of in ('all', *sorted({run['method'] for run in runs})):
        for metric in METRICS:
            for against in AGAINST:
                pairs = [
                    (run[metric], run[against])
                    for run in runs
                    if of in ('all', run['method']) and run.get(against) is not None and run[metric] == run[metric]
                ]
                if len(pairs) >= LEAST_RUNS:
                    found = spearmanr(*zip(*pairs, strict=True))
                    yield dict(metric=metric, against=against, spearman=round(float(found.statistic), 3),
                               runs=len(pairs), of=of, p=round(float(found.pvalue), 4))  # fmt: skip


def main() -> None:
    """Measure; ``--help`` lists the flags."""
    args = make_parser().parse_args()
    runs = []
    points = find_points(args.work_dirs)
    for point in points:
        scores = json.loads(point.read_text())
        kept = {key: scores[key] for key in ('method', 'seed', 'epoch', 'learning_rate', *AGAINST) if key in scores}
        runs.append(kept | measure(point, args.data, args.images, args.views))
        print(f'{len(runs)} of {len(points)}: {runs[-1]}', flush=True)
    conditions = dict(images=args.images, views=args.views, hardware=hardware(), **stamp())
    rows = list(correlations(runs))
    write_rows(args.out / 'label_free.json', [row | conditions for row in rows])
    write_rows(args.out / 'label_free_runs.json', [run | conditions for run in runs])
    columns = ('metric', 'against', 'of', 'spearman', 'runs', 'p')
    print(markdown_table(columns, [[str(row[column]) for column in columns] for row in rows]))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.label_free', description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='of tools/compare.py')
    add('--data', type=Path, help='folder of images that no run was trained on (default: those of evaluation.py)')
    add('--images', type=int, default=1000, help='how many (default: %(default)s)')
    add('--views', type=int, default=4, help='corruptions of each (default: %(default)s)')
    add('--out', type=Path, default=RESULTS, help='folder of the two files')
    return parser


if __name__ == '__main__':
    main()
