"""What a comparison says before and while it trains, and how it is made short."""

import json
import sys
import threading

import pytest
from mmengine.config import Config

from mmebm.commands import compare, make_shapes
from mmebm.experiments import reporting
from mmebm.experiments.comparison import estimate
from mmebm.experiments.comparison.comparison import Bench, Comparison
from mmebm.experiments.comparison.estimate import Estimate, duration, estimates, print_estimate


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '80', '--val', '20', '--image-size', '32'])
    return folder


def bench_of(shapes, work_dir, *argv):
    args = compare.make_parser().parse_args(['--data', str(shapes), '--work-dir', str(work_dir), *argv])
    return Bench(Comparison(**vars(args)))


def epoch_log(folder, *lines):
    (folder / 'run/vis_data').mkdir(parents=True, exist_ok=True)
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (folder / 'run/vis_data/scalars.json').write_text(text + '{"epoch": 9, "half')


def test_the_position_of_a_training_is_that_of_the_last_whole_line(tmp_path):
    by_epoch, by_iter = Config(dict(train_cfg=dict(max_epochs=20))), Config(dict(train_cfg=dict(max_iters=500)))
    assert reporting.position(by_epoch, tmp_path) is None
    epoch_log(tmp_path, dict(epoch=3, iter=30), dict(knn=1.0))
    assert reporting.position(by_epoch, tmp_path) == 'epoch 3 of 20'
    assert reporting.position(by_iter, tmp_path) == 'iteration 30 of 500'
    assert reporting.position(by_epoch, tmp_path, since=sys.maxsize) is None  # the log of an earlier process


def test_news_are_said_once_while_a_training_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, 'INTERVAL', 0.01)
    said, is_said = [], threading.Event()

    def say(line):
        said.append(line)
        is_said.set()

    with reporting.reporting('finetune', Config(dict(train_cfg=dict(max_epochs=2))), tmp_path, say):
        epoch_log(tmp_path, dict(epoch=1, iter=4))
        assert is_said.wait(10)
        threading.Event().wait(0.1)
    assert said == ['finetune: epoch 1 of 2, 0 s']


def test_the_estimate_counts_every_training(shapes, tmp_path, monkeypatch):
    speeds = {'finetune': 100.0, 'beit': 20.0, 'tokenizer': 40.0, 'mae': 50.0}
    monkeypatch.setattr(estimate, 'eager_speed', lambda bench, method: speeds[method])
    bench = bench_of(shapes, tmp_path, '--methods', 'mae', 'beit', 'random', '--budget', 'epochs=4', '--points', '2')
    monkeypatch.setattr(bench, 'cost', lambda method: dict(steps=1, gflops_per_image=1.0))
    frozen, tuning = 100 / 300, 7 + 80 * 20 / 100
    assert [*estimates(bench, startup=7.0)] == [
        Estimate('mae', pytest.approx(7 + 4 * 64 / 50), pytest.approx(2 * frozen), tuning),
        Estimate('tokenizer', pytest.approx(7 + 4 * 64 / 20 / 2), 0.0, 0.0),
        Estimate('beit', pytest.approx(7 + 4 * 64 / 20), pytest.approx(2 * frozen), tuning),
        Estimate('random', 0.0, pytest.approx(frozen), tuning),
    ]
    seconds = bench_of(shapes, tmp_path, '--methods', 'mae', '--budget', 'seconds=60', '--finetune-points', '0')
    assert [*estimates(seconds, startup=7.0)] == [Estimate('mae', 67.0, pytest.approx(4 * frozen), 0.0)]


def test_methods_share_the_estimate_of_one_tokenizer(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, 'eager_speed', lambda bench, method: 20.0)
    methods = ['cim-respix', 'beit', 'cim-revdet']
    bench = bench_of(shapes, tmp_path, '--methods', *methods, '--budget', 'epochs=4', '--points', '1')
    monkeypatch.setattr(bench, 'cost', lambda method: dict(steps=1, gflops_per_image=1.0))
    assert [row.method for row in estimates(bench, startup=7.0)] == ['tokenizer', *methods]
    assert bench.trained() == ['tokenizer', *methods]


def test_the_estimate_is_printed_as_a_whole(capsys):
    print_estimate([Estimate('mae', 60.0, 20.0, 220.0), Estimate('random', 0.0, 20.0, 220.0)], seeds=3)
    out, err = capsys.readouterr()
    assert out == '' and 'mae' in err and 'About 27 min in all' in err and '--quick' in err
    assert [duration(s) for s in (1.0, 99.4, 120.0, 7200.0)] == ['1 s', '99 s', '2 min', '2.0 h']


def test_quick_is_short_and_what_is_given_counts(shapes, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(compare, 'Bench', lambda comparison: seen.append(comparison) or sys.exit())
    for argv in ([], ['--seeds', '2', '--work-dir', str(tmp_path)]):
        with pytest.raises(SystemExit):
            compare.main(['--data', str(shapes), '--quick', *argv])
    assert [(c.budget, c.seeds, c.points, str(c.work_dir)) for c in seen] == [
        ('epochs=1', 1, 1, 'work_dirs/compare_quick'),
        ('epochs=1', 2, 1, str(tmp_path)),
    ]


def test_quick_trains_little(shapes, tmp_path):
    bench = bench_of(shapes, tmp_path, '--methods', 'ebm-patches', 'mae', '--quick', '--budget', 'epochs=1')
    assert bench.images == 80  # of 1,000
    assert bench.config('ebm-patches').model.training_step.compile is False
    assert (bench.downstream.train_cfg.max_epochs, bench.downstream.train_cfg.val_interval) == (2, 2)
    assert max(part.end for part in bench.downstream.param_scheduler) == 2
    assert bench.config('mae').train_cfg.max_epochs == 30  # the budget is for these
    given = bench_of(shapes, tmp_path, '--methods', 'mae', '--quick', '--images', '70', '--cfg-options',
                     'finetune.train_cfg.max_epochs=3')  # fmt: skip
    assert (given.images, given.downstream.train_cfg.max_epochs) == (70, 3)


def test_a_full_comparison_is_as_configs_say(shapes, tmp_path):
    bench = bench_of(shapes, tmp_path, '--methods', 'ebm-patches')
    assert bench.config('ebm-patches').model.training_step.compile is True
    assert (bench.images, bench.downstream.train_cfg.max_epochs) == (None, 20)
