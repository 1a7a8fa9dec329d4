"""Choice on the training images alone, and final figures on images that nothing was chosen by."""

import json
import shutil

import numpy as np
import pytest
import torch

from mmebm.commands import compare, make_shapes
from mmebm.config_tree import nested_dicts
from mmebm.experiments.comparison import held_out
from mmebm.experiments.comparison.comparison import Bench
from mmebm.experiments.comparison.paired import discordant
from mmebm.experiments.comparison.selection import (
    choose,
    cross_validated,
    folds,
    read_selection,
    selection_table,
    write_selection,
)
from mmebm.experiments.comparison.settings import Comparison


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """The folder of a comparison, without one to test on; beside it, images that are held out."""
    folder = tmp_path_factory.mktemp('data')
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '60', '--val', '20', '--image-size', '32'])
    (folder / 'data').mkdir()
    (folder / 'train').rename(folder / 'data/train')
    (folder / 'val').rename(folder / 'held_out')
    return folder


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    monkeypatch.setattr(held_out, 'stamp', lambda: dict(commit='abc1234'))


def arguments(images, work_dir, *flags, methods=('mae', 'random')):
    small = [
        f'{name}.train_dataloader.{key}'
        for name in {*methods, 'finetune'} - {'random'}
        for key in ('batch_size=8', 'num_workers=0')
    ]
    argv = ['--data', str(images / 'data'), '--work-dir', str(work_dir), '--methods', *methods, *flags]
    return [*argv, '--budget', 'epochs=2', '--cfg-options', *small, 'finetune.val_dataloader.num_workers=0']


def bench_of(*args, **kwargs):
    return Bench(Comparison(**vars(compare.make_parser().parse_args(arguments(*args, **kwargs)))))


def test_seeds_of_the_final_figures_are_fresh():
    assert [*Comparison('data').seed_numbers] == [0, 1, 2]
    assert [*Comparison('data', final='folder').seed_numbers] == [100, 101, 102]
    assert [*Comparison('data', final='folder', first_seed=0, seeds=1).seed_numbers] == [0]


def test_a_selection_reads_training_images_alone(images, tmp_path):
    bench = bench_of(images, tmp_path, '--select', methods=('ebm', 'supervised', 'random'))
    kept, scored = bench.scoring.kept, bench.scoring.scored
    assert sorted(kept + scored) == [*range(60)]
    assert len(scored) == 12
    for name, indices in (('finetune', kept), ('supervised', kept), ('ebm', None)):
        cfg = bench.config(name)
        assert cfg.train_dataloader.dataset.get('indices') == indices
        loaders = [cfg.get(f'{part}_dataloader') for part in ('train', 'val', 'test')]
        assert {node['data_prefix'] for _, node in nested_dicts(loaders) if 'data_prefix' in node} == {'train'}
    for loader in (bench.downstream.val_dataloader, bench.downstream.test_dataloader):
        assert (loader.dataset.data_prefix, loader.dataset.indices) == ('train', scored)
    fewer = bench_of(images, tmp_path / 'fewer', '--select', '--images', '50').scoring
    assert {i % 6 for i in fewer.kept + fewer.scored} == {0, 1, 2, 3, 4}  # indices of the images, not of the part
    assert len(fewer.kept) == 40


def test_folds_are_fixed_and_stratified():
    labels = [0] * 10 + [1] * 20
    divided = folds(labels)
    assert sorted(np.concatenate([scored for _, scored in divided])) == [*range(30)]
    assert [np.bincount(np.take(labels, scored)).tolist() for _, scored in divided] == [[2, 4]] * 5
    assert all((a == b).all() for a, b in zip(divided[0], folds(labels)[0], strict=True))


def test_cross_validation_scores_each_sample_by_the_others():
    torch.manual_seed(0)
    clear = [dict(features=torch.eye(8)[i % 2] + 0.01 * torch.rand(8), gt_label=i % 2) for i in range(100)]
    assert cross_validated(clear, 'mmebm.KNNAccuracy', 'mmebm.LinearProbeAccuracy') == {
        'frozen/knn_top1': 100.0,
        'frozen/linear_top1': 100.0,
    }
    for i in range(10):  # one in ten is labelled as the other class
        clear[i]['gt_label'] = 1 - clear[i]['gt_label']
    assert cross_validated(clear, 'mmebm.KNNAccuracy') == {'frozen/knn_top1': 90.0}


def row(method, rate, seed, linear, epoch=4):
    scores = dict(knn_top1=30.0, linear_top1=linear, finetune_top1=None)
    return dict(method=method, learning_rate=rate, seed=seed, epoch=epoch, **scores)


@pytest.fixture
def rows():
    return [
        row('mae', 1e-3, 0, 50.0),
        row('mae', 1e-3, 1, 52.0),
        row('mae', 2e-3, 0, 60.0, epoch=2),  # not the last point
        row('mae', 2e-3, 0, 53.0),
        row('mae', 2e-3, 1, 50.0),
        row('random', None, 0, 40.0, epoch=0),
        row('random', None, 1, 41.0, epoch=0),
    ]


def test_the_best_mean_at_the_last_point_is_chosen(rows, tmp_path):
    chosen = choose(rows, dict(mae=[1e-3, 2e-3], random=[None]), [0, 1])
    assert chosen == dict(
        mae=dict(learning_rate=2e-3, linear_top1=51.5, configurations=2),
        random=dict(learning_rate=None, linear_top1=40.5, configurations=1),
    )
    assert selection_table(rows, chosen).splitlines()[2:] == [
        '| `mae` | 0.001 |  | 2 | 30.0 ± 0.0 | 51.0 ± 1.4 | - |',
        '| `mae` | **0.002** | 2 | 2 | 30.0 ± 0.0 | 51.5 ± 2.1 | - |',
        '| `random` | **-** | 1 | 2 | 30.0 ± 0.0 | 40.5 ± 0.7 | - |',
    ]
    write_selection(tmp_path, rows, chosen, 'vit-w128', ['mae', 'random'])
    assert read_selection(tmp_path, ['mae'], 'vit-w128') == dict(mae=2e-3)
    assert read_selection(tmp_path / 'selection.json', ['mae'], 'vit-w128') == dict(mae=2e-3)


def test_nothing_is_chosen_before_all_has_been_tried(rows):
    rates = dict(mae=[1e-3, 2e-3, 4e-3])
    assert choose(rows, rates, [0, 1]) == {}
    chosen = choose(rows, rates, [0, 1], failed={('mae', 4e-3, 1)})
    assert (chosen['mae']['learning_rate'], chosen['mae']['configurations']) == (2e-3, 3)
    assert choose(rows, dict(mae=[2e-3]), [0, 1])['mae']['configurations'] == 2  # an earlier call tried another
    assert choose([], dict(mae=[1e-3]), [0], failed={('mae', 1e-3, 0)}) == {}


@pytest.mark.parametrize('failed', [{('mae', 4e-3, 0)}, set()])
def test_a_score_half_way_is_not_one_of_the_end(rows, failed, tmp_path):
    """A training that failed later, or goes on, had a good score at its first point."""
    rows += [row('mae', 4e-3, seed, 60.0, epoch=1) for seed in (0, 1)]
    chosen = choose(rows, dict(mae=[1e-3, 2e-3, 4e-3]), [0, 1], failed)
    assert chosen.get('mae', {}).get('learning_rate') == (2e-3 if failed else None)
    write_selection(tmp_path, rows, chosen, 'vit-w128', ['mae'])
    why = 'Nothing is chosen for `mae`: trainings have failed, or are not as far as others here.'
    assert (why in (tmp_path / 'selection.md').read_text()) == (not failed)


def test_refuses_a_selection(rows, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no such file; --select writes it'):
        read_selection(tmp_path, ['mae'], 'vit-w128')
    write_selection(tmp_path, rows, dict(mae=dict(learning_rate=2e-3, configurations=2)), 'vit-w128', ['mae'])
    with pytest.raises(ValueError, match='nothing is chosen for ebm; finish --select with it'):
        read_selection(tmp_path, ['mae', 'ebm'], 'vit-w128')
    with pytest.raises(ValueError, match='chosen for --backbone vit-w128, not vit-w128-d12'):
        read_selection(tmp_path, ['mae'], 'vit-w128-d12')
    (tmp_path / 'selection.json').write_text('[]')
    with pytest.raises(ValueError, match='not a file that --select has written'):
        read_selection(tmp_path, ['mae'], 'vit-w128')


@pytest.mark.parametrize(
    'flags, error',
    [
        (['--select', '--final', 'held_out'], '--select chooses on the training images, --final scores'),
        (['--learning-rates', '1e-3'], '--learning-rates: only --select tries several'),
        (
            ['--select', '--learning-rates', '1e-3', '1e-3'],
            '--learning-rates 0.001 0.001: give different ones, above 0',
        ),
        (['--select', '--learning-rates', 'nan'], '--learning-rates nan: give different ones, above 0'),
        (['--selection', 'folder'], '--selection and --reference are for --final alone'),
        (['--final', 'nowhere'], '--final nowhere: there is no such folder'),
        (['--final', 'nowhere', '--reference', 'ebm'], '--reference ebm: give one of --methods mae random'),
        ([], 'needs train/ and test/ or val/'),
    ],
)
def test_refuses_flags(images, tmp_path, capsys, flags, error):
    with pytest.raises(SystemExit):
        compare.main(arguments(images, tmp_path, *flags))
    assert error in capsys.readouterr().err


def test_refuses_learning_rates_from_two_places(images, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main(
            [
                *arguments(images, tmp_path, '--select', '--learning-rates', '1e-3'),
                'mae.optim_wrapper.optimizer.lr=2e-3',
            ]
        )
    assert '--learning-rates gives the learning rates; leave one of them out' in capsys.readouterr().err


def test_refuses_final_figures_of_no_commit(images, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, 'stamp', lambda: dict(commit='abc1234+'))
    with pytest.raises(ValueError, match='the code or the configs differ from commit abc1234; commit them first'):
        bench_of(images, tmp_path, '--final', str(images / 'held_out'))
    monkeypatch.setattr(held_out, 'stamp', lambda: dict(commit='unknown'))  # not a checkout
    assert bench_of(images, tmp_path, '--final', str(images / 'held_out')).scoring.num_images() == 20


def test_refuses_other_classes_and_training_images(images, tmp_path):
    other = shutil.copytree(images / 'held_out', tmp_path / 'other')
    name = sorted(path.name for path in other.iterdir())[3]
    (other / name).rename(other / 'yak')
    with pytest.raises(ValueError, match=f'2 are in one of them alone: {name}, yak'):
        bench_of(images, tmp_path / 'runs', '--final', str(other))
    with pytest.raises(ValueError, match='these are the training images; give a folder of others'):
        bench_of(images, tmp_path / 'runs', '--final', str(images / 'data/train'))


def test_refuses_a_class_with_fewer_images_than_folds(images, tmp_path):
    with pytest.raises(ValueError, match=r'needs 5 images of each class, one per fold; \w+ has fewer'):
        bench_of(images, tmp_path, '--select', '--images', '40')


def test_refuses_the_work_dir_of_another_kind(images, tmp_path):
    bench_of(images, tmp_path, '--select')
    with pytest.raises(ValueError, match='holds a selection; give another one'):
        bench_of(images, tmp_path, '--final', str(images / 'held_out'))
    with pytest.raises(ValueError, match='select holds a run of other settings'):
        bench_of(images, tmp_path, '--select', '--images', '50')


@pytest.mark.slow
def test_from_choice_to_final_figures(images, tmp_path, trained):
    """On 60 images without a test folder, then on 20 that are held out."""
    short = ['finetune.train_cfg.max_epochs=1', 'finetune.train_cfg.val_interval=1', 'finetune.param_scheduler=None']
    select = ['--select', '--learning-rates', '1e-3', '4e-3', '--seeds', '1', '--points', '1']
    compare.main([*arguments(images, tmp_path / 'select', *select), *short])
    assert [folder for folder in trained if 'finetune' not in folder] == [
        'select/mae/lr_0.001/seed_0',
        'select/mae/lr_0.004/seed_0',
    ]
    selection = json.loads((tmp_path / 'select/selection.json').read_text())
    scores = {row['learning_rate']: row['linear_top1'] for row in selection['rows']}
    assert scores.keys() == {1e-3, 4e-3, None}
    assert all(row['finetune_top1'] is not None for row in selection['rows'])
    best = selection['chosen']['mae']['learning_rate']
    assert scores[best] == max(scores[1e-3], scores[4e-3])
    assert [selection['chosen'][method]['configurations'] for method in ('mae', 'random')] == [2, 1]
    assert f'**{best:g}**' in (tmp_path / 'select/selection.md').read_text()

    final = ['--final', str(images / 'held_out'), '--selection', str(tmp_path / 'select'), '--seeds', '2']
    final = [*arguments(images, tmp_path / 'final', *final, '--points', '2', '--reference', 'random'), *short]
    compare.main(final)
    rows = json.loads((tmp_path / 'final/compare.json').read_text())
    assert [(row['method'], row['seed'], row['epoch']) for row in rows] == [
        *[('mae', seed, epoch) for seed in (100, 101) for epoch in (1, 2)],
        *[('random', seed, 0) for seed in (100, 101)],
    ]
    assert {row['learning_rate'] for row in rows} == {best, None}
    records = {}
    for row in rows:
        folder = tmp_path / 'final' / row['method'] / f'seed_{row["seed"]}'
        record = json.loads((folder / f'held_out_{row["epoch"]}.json').read_text())
        assert {images / 'held_out' / path for path in record['images']} == {*(images / 'held_out').rglob('*.png')}
        for quality in ('knn_top1', 'linear_top1', 'finetune_top1'):
            bits = record['correct'].get(quality)
            assert row[quality] == (None if bits is None else pytest.approx(5 * sum(bits)))
        records[row['method'], row['seed'], row['epoch']] = record['correct']
    paired = json.loads((tmp_path / 'final/paired.json').read_text())
    assert [(row['method'], row['epoch'], row['quality']) for row in paired] == [
        ('mae', 2, quality) for quality in ('knn_top1', 'linear_top1', 'finetune_top1')
    ]
    text = (tmp_path / 'final/compare.md').read_text()
    for row in paired:
        pairs = [
            discordant(records['mae', seed, 2][row['quality']], records['random', seed, 0][row['quality']])
            for seed in (100, 101)
        ]
        assert (row['better'], row['worse']) == ([pair.better for pair in pairs], [pair.worse for pair in pairs])
        assert row['p'] == [pytest.approx(pair.p) for pair in pairs]
        assert f'| {sum(row["better"])} : {sum(row["worse"])} | ' in text
    trained.clear()
    compare.main(final)
    assert trained == []
