"""Trainings of downstream tasks, each in a process and a folder of its own, from one initialisation."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmebm.experiments.downstream.tasks import TASKS
from mmebm.experiments.processes import run_config
from mmebm.experiments.reporting import reporting, say
from mmebm.experiments.results import write_json
from mmebm.planning.config_facts import accumulated, base_batch_size
from mmebm.report.run import json_lines


class Run(NamedTuple):
    """One training of one task from one initialisation, or one kNN."""

    task: str
    init: str
    seed: int
    cfg: Config
    folder: Path

    @property
    def name(self) -> str:
        """As it is printed."""
        return f'{self.task} from {self.init}, seed {self.seed}'


def with_weights(cfg: Config, checkpoint: str | None, seed: int, folder: Path) -> Config:
    """A copy of a config that starts from a checkpoint, or from random weights."""
    cfg = Config(cfg.to_dict())
    cfg.model.backbone.init_cfg = checkpoint and dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(folder)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    return cfg


def thaw(backbone: ConfigDict) -> None:
    """Let all of a backbone train, of which detection, for instance, freezes a part: random weights must learn it."""
    backbone.update({key: value for key, value in dict(frozen_stages=-1, norm_eval=False).items() if key in backbone})


def perform(runs: Sequence[Run], jobs: int, gpus: int) -> list[Run]:
    """Do the runs that have no result yet, ``jobs`` at a time; returns those that failed."""
    failed = []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress, ThreadPoolExecutor(jobs) as pool:
        missing = [run for run in runs if not (run.folder / 'result.json').is_file()]
        bar = progress.add_task('Evaluating', total=len(missing))
        say_above_bar = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
        futures = {pool.submit(_do, run, jobs, gpus, say_above_bar): run for run in missing}
        try:
            for future in as_completed(futures):
                run = futures[future]
                if future.exception() is not None:
                    failed.append(run)
                say_above_bar(f'{run.name}: {future.exception() or future.result()}')
                progress.advance(bar)
        except (KeyboardInterrupt, SystemExit):  # which stop the present trainings
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def check_age(run: Run, checkpoint: str | None) -> None:
    """Check that a run's result, if there is one, is not older than the checkpoint that it is of.

    Raises:
        ValueError: It is: the checkpoint has been written anew since.
    """
    result = run.folder / 'result.json'
    if checkpoint and result.is_file() and result.stat().st_mtime < Path(checkpoint).stat().st_mtime:
        raise ValueError(
            f'{run.folder} holds a result of an older {checkpoint}, which has been written since; remove that folder, '
            'or give another --work-dir'
        )


def result_rows(run: Run) -> list[dict]:
    """One row per metric: ``task, metric, init, seed, value`` (in percent) and ``seconds``."""
    result = json.loads((run.folder / 'result.json').read_text())
    return [
        dict(
            task=metric.task,
            metric=metric.name,
            init=run.init,
            seed=run.seed,
            value=round(metric.scale * result[metric.key], 3),
            seconds=result['seconds'],
        )
        for metric in TASKS[run.task].metrics
    ]


def last_validation(run: Run) -> Iterator[tuple[str, float]]:
    """The metrics of a run's task, by the log's names, as mmengine has logged them last.

    Raises:
        ValueError: The log has none.
    """
    for metric in TASKS[run.task].metrics:
        values = [line[metric.key] for line in logged(run) if metric.key in line]
        if not values:
            raise ValueError(f'{run.folder} has no {metric.key} in its log')
        yield metric.key, values[-1]


def logged(run: Run) -> list[dict]:
    """What a run has logged, oldest first."""
    paths = sorted(run.folder.glob('*/vis_data/scalars.json'))  # by the time at which the process began
    paths += [path for path in (run.folder / 'knn.json', run.folder / 'validation' / 'metrics.json') if path.is_file()]
    return [line for path in paths for line in json_lines(path)]


def _do(run: Run, jobs: int, gpus: int, say: Callable[[str], None] = say) -> str:
    """Do one run, saying how far it is; returns its figures as text."""
    start = time.time()
    say(f'{run.name}: started')
    with reporting(run.name, run.cfg, run.folder, say):
        _train(run, jobs, gpus)
    figures = dict(last_validation(run))
    write_json(run.folder / 'result.json', figures | dict(seconds=round(time.time() - start, 1)))
    return ', '.join(f'{row["metric"]} {row["value"]:.1f}' for row in result_rows(run))


def _train(run: Run, jobs: int, gpus: int) -> None:
    """Train and validate one run in a process of its own."""
    threads = {} if jobs == 1 else dict(OMP_NUM_THREADS=str(max(len(os.sched_getaffinity(0)) // jobs, 1)))
    # The learning rate is meant for the config's total batch; who accumulates batches has chosen their number.
    is_scaled = base_batch_size(run.cfg) and accumulated(run.cfg) == 1
    flags = ['--resume', *(['--auto-scale-lr'] if is_scaled else [])]
    if run.task == 'knn':
        run_config(['mmebm.experiments.downstream.frozen'], run.cfg, run.folder, **threads)
    elif gpus == 1:
        run_config(['mmebm.commands.train'], run.cfg, run.folder, flags, **threads)
    else:
        launch = ['torch.distributed.run', '--standalone', f'--nproc_per_node={gpus}', '-m', 'mmebm.commands.train']
        run_config(launch, run.cfg, run.folder, [*flags, '--launcher', 'pytorch'], **threads)
    if not any(TASKS[run.task].metrics[0].key in line for line in logged(run)[-1:]):
        _validate(run, threads)


def _validate(run: Run, threads: dict[str, str]) -> None:
    """Score the last checkpoint of a training that was interrupted after it, before its validation."""
    folder = run.folder / 'validation'
    cfg = Config(run.cfg.to_dict() | dict(work_dir=str(folder)))
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    checkpoint = (run.folder / 'last_checkpoint').read_text()
    flags = [checkpoint, '--out', str(folder / 'metrics.json'), '--out-item', 'metrics']
    run_config(['mmebm.commands.test'], cfg, folder, flags, **threads)
