"""What the comparison counts, converts and writes; and one small comparison from end to end."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

import mmebm.models.peers  # noqa: F401
from mmebm.commands import compare, make_shapes
from mmebm.experiments.comparison.budget import parse_budget, set_epochs, spread_points
from mmebm.experiments.comparison.comparison import Bench, Comparison
from mmebm.experiments.comparison.pretraining import ONLY_DOWNSTREAM, Training, save_backbone, step_seconds
from mmebm.experiments.comparison.settings import METHODS
from mmebm.experiments.comparison.tables import AXES, curve, plot, progress, table
from mmebm.experiments.image_folders import evenly_spaced
from mmebm.experiments.training_cost import Speed, measure_cost, measure_speed
from mmebm.launch.options import replace_data_root

ROOT = Path(__file__).parents[2]
PEERS = ROOT / 'configs/peers'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '40', '--val', '20', '--image-size', '32'])
    return folder


@pytest.mark.parametrize(
    'text, epochs',
    [
        ('epochs=30', 30),
        ('seconds=107', 5),  # an epoch of 1,000 images at 50 a second takes 20, and the first one 7 more
        ('seconds=106.9', 4),
        ('cpu-seconds=107', 5),
        ('flops=1e6', 3),  # an epoch of 1,000 images at 300 FLOPs takes 300,000
        ('flops=3e5', 1),
    ],
)
def test_budgets_in_epochs(text, epochs):
    assert parse_budget(text).epochs(1000, 300.0, Speed(50.0, 7.0)) == epochs


def test_a_budget_that_floats_miss_by_a_hair():
    speed = Speed(10.0, 0.0)
    assert parse_budget('seconds=0.3').epochs(1, 1.0, speed) == 3  # 0.3 / 0.1 < 3 in floating point


@pytest.mark.parametrize('text', ['30', 'hours=3', 'epochs=', 'epochs=0', 'seconds=-1', 'flops=inf', 'epochs=nan'])
def test_refuses_a_budget(text):
    with pytest.raises(ValueError, match=r'--budget .*epochs=N, seconds=S or flops=F'):
        parse_budget(text)


def test_refuses_less_than_an_epoch():
    with pytest.raises(ValueError, match='seconds=26 is less than an epoch, which takes 27'):
        parse_budget('seconds=26').epochs(1000, 300.0, Speed(50.0, 7.0))


@pytest.mark.parametrize(
    'epochs, number, points', [(30, 4, [8, 16, 24, 30]), (4, 4, [1, 2, 3, 4]), (3, 4, [1, 2, 3]), (1, 4, [1])]
)
def test_points_along_a_run(epochs, number, points):
    assert spread_points(epochs, number) == points


def test_some_of_the_images():
    assert evenly_spaced(4, 10) == [0, 2, 5, 7]
    assert evenly_spaced(3, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match='--images 4: the folder train/ has 3'):
        evenly_spaced(4, 3)


def test_schedule_is_stretched():
    cfg = Config.fromfile(PEERS / 'mae_vit-w128_32px.py')
    set_epochs(cfg, 10, steps=156)
    assert cfg.train_cfg.max_epochs == 10
    spans = [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler]
    assert spans == [pytest.approx((0, 1)), pytest.approx((1, 10))]


def test_a_warm_up_of_less_than_a_step_is_left_out():
    cfg = Config.fromfile(PEERS / 'mae_vit-w128_32px.py')
    set_epochs(cfg, 1, steps=4)
    assert [(scheduler.type, scheduler.end) for scheduler in cfg.param_scheduler] == [('CosineAnnealingLR', 1)]


def test_methods_have_configs():
    assert METHODS == ('ebm', 'ebm-patches', 'mae', 'simmim', 'beit', 'maskfeat', 'supervised', 'random')
    for backbone in ('vit-w128', 'vit-w128-d12'):
        for method, algorithm in (('ebm', 'EBMAlgorithm'), ('ebm-patches', 'PatchEBM')):
            assert Config.fromfile(PEERS / f'{method}_{backbone}_32px.py').model.type == f'mmebm.{algorithm}'
        assert all((PEERS / f'{method}_{backbone}_32px.py').is_file() for method in METHODS[:-1])


def row(method, seed, epoch, **figures):
    return dict(
        dict(method=method, seed=seed, epoch=epoch, seconds=10.0 * epoch, gflops=3.0 * epoch, finetune_top1=None),
        **figures,
    )


@pytest.fixture
def rows():
    rows = [
        row('ebm', seed, epoch, knn_top1=20.0 + epoch + seed, linear_top1=40.0 + epoch)
        for seed in (0, 1, 2)
        for epoch in (2, 4)
    ]
    for seed in (0, 1, 2):
        rows[2 * seed + 1].update(finetune_top1=60.0 + 2 * seed, seconds=40.0 + seed)
    return [*rows, row('random', 0, 0, knn_top1=15.0, linear_top1=30.0, finetune_top1=50.0)]


def test_curve_has_mean_and_standard_deviation_over_seeds(rows):
    assert curve(rows, 'ebm', 'epoch', 'knn_top1') == [(2, 23.0, 1.0), (4, 25.0, 1.0)]
    assert curve(rows, 'ebm', 'seconds', 'finetune_top1') == [(41.0, 62.0, 2.0)]
    assert curve(rows, 'mae', 'epoch', 'knn_top1') == []


def test_table(rows):
    for row in rows[:6]:  # 0.3 GFLOPs a second
        row['gflops'] = 0.3 * row['seconds']
    cost = dict(gflops_per_image=0.1234, peak_memory_mib=99.6)
    assert table(rows, dict(ebm=cost, tokenizer=cost)).splitlines() == [
        '| method | epochs | seconds | images/s | GFLOP per image | peak MiB | kNN | linear probe | fine-tuned |',
        '| --- | --: | --: | --: | --: | --: | --: | --: | --: |',
        '| `ebm` | 4 | 41 | 2.4 | 0.123 | 100 | 25.0 ± 1.0 | 44.0 ± 0.0 | 62.0 ± 2.0 |',
        '| `random` | 0 | 0 | - | - | - | 15.0 | 30.0 | 50.0 |',
        '| `tokenizer` | - | - | - | 0.123 | 100 | - | - | - |',
    ]


def test_progress(rows):
    assert progress(rows).splitlines() == [
        '| top-1 (%) after epoch | 2 | 4 |',
        '| --- | --: | --: |',
        '| kNN, `ebm` | 23.0 ± 1.0 | 25.0 ± 1.0 |',
        '| linear probe, `ebm` | 42.0 ± 0.0 | 44.0 ± 0.0 |',
        '| fine-tuned, `ebm` | - | 62.0 ± 2.0 |',
    ]


@pytest.mark.parametrize('axis, expected', [('epoch', [2, 4]), ('seconds', [20, 41]), ('gflops', [6, 12])])
def test_plot(rows, axis, expected):
    knn, linear, finetuned = plot(rows, axis).axes
    (container,) = knn.containers
    line = container.lines[0]
    assert line.get_xdata().tolist() == expected
    assert line.get_ydata().tolist() == [23.0, 25.0]
    dotted = [line for line in knn.lines if line.get_linestyle() == ':']
    assert [line.get_ydata()[0] for line in dotted] == [15.0]
    assert linear.get_xlabel() == AXES[axis]
    assert finetuned.containers[0].lines[0].get_ydata().tolist() == [62.0]


def test_cost_of_a_supervised_step(shapes):
    cfg = Config.fromfile(PEERS / 'supervised_vit-w128_32px.py')
    replace_data_root(cfg, cfg.data_root, str(shapes))
    cfg.train_dataloader.update(batch_size=8, num_workers=0)
    with pytest.warns(UserWarning, match='float32'):
        cost = measure_cost(cfg)
        speed = measure_speed(cfg, rounds=3)
    tokens, width = 65, 128
    linear, attention = 2 * 12 * width**2 * tokens, 2 * 2 * tokens**2 * width
    patches, head = 2 * 64 * width * 48, 2 * width * 10
    # Backward, fused attention computes its weights anew; the gradient of the image is not needed.
    expected = 4 * (3 * linear + 3.5 * attention) + 2 * patches + 3 * head
    assert 1e9 * cost['gflops_per_image'] == pytest.approx(expected, rel=1e-3)
    assert cost['steps'] == 5
    assert cost['peak_memory_mib'] > 1
    assert 1 < speed.images_per_second < 1e5
    assert speed.startup_seconds >= 0


def save(name, path):
    model = MODELS.build(Config.fromfile(PEERS / f'{name}.py').model)
    torch.save(dict(state_dict=model.state_dict()), path)
    return model


def test_saved_backbone_has_the_weights_that_are_fine_tuned(tmp_path):
    downstream = Config.fromfile(PEERS / 'finetune_vit-w128_32px.py')
    model = save('simmim_vit-w128_32px', tmp_path / 'simmim.pth')
    save_backbone(tmp_path / 'simmim.pth', downstream, set(), tmp_path / 'backbone.pth')
    state = torch.load(tmp_path / 'backbone.pth')['state_dict']
    expected = {f'backbone.{k}': v for k, v in model.backbone.state_dict().items() if k != 'mask_token'}
    assert state.keys() == expected.keys()
    assert all(state[key].equal(expected[key]) for key in expected)


def test_refuses_another_backbone(tmp_path):
    downstream = Config.fromfile(PEERS / 'finetune_convnext-w32_32px.py')
    save('spark_convnext-w32_32px', tmp_path / 'spark.pth')
    lacks = ONLY_DOWNSTREAM['spark']
    save_backbone(tmp_path / 'spark.pth', downstream, lacks, tmp_path / 'backbone.pth')
    with pytest.raises(ValueError, match=r"spark\.pth: not the backbone of fine-tuning; missing \['norm3"):
        save_backbone(tmp_path / 'spark.pth', downstream, set(), tmp_path / 'backbone.pth')


def test_refuses_other_data(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main(['--data', str(tmp_path), '--work-dir', str(tmp_path / 'out')])
    assert f'--data {tmp_path}: needs train/ and test/ or val/' in capsys.readouterr().err


def test_refuses_a_test_set_of_other_classes(shapes, tmp_path, capsys):
    data = shutil.copytree(shapes, tmp_path / 'data')
    name = sorted(path.name for path in (data / 'val').iterdir())[3]
    (data / 'val' / name).rename(data / 'val/yak')
    argv = ['--data', str(data), '--methods', 'random', '--work-dir', str(tmp_path / 'out')]
    with pytest.raises(SystemExit):
        compare.main([*argv, '--cfg-options', *batches_of_8('finetune')])
    assert f'2 are in one of them alone: {name}, yak' in capsys.readouterr().err


def test_images_are_counted_as_training_reads_them(shapes, tmp_path):
    for name in ('train', 'test'):
        (tmp_path / name).mkdir()
        for folder in (shapes / 'train').iterdir():
            (tmp_path / name / folder.name).symlink_to(folder)
    argv = ['--data', str(tmp_path), '--methods', 'random', '--work-dir', str(tmp_path / 'runs')]
    argv += ['--cfg-options', *batches_of_8('finetune')]
    bench = bench_of(argv)
    assert bench.num_images == sum(path.is_file() for path in (shapes / 'train').rglob('*.*'))
    assert bench.num_classes == len(list((shapes / 'train').iterdir()))


@pytest.mark.parametrize('flags', [['--points', '0'], ['--finetune-points', '-1']])
def test_refuses_numbers_of_points(shapes, tmp_path, capsys, flags):
    with pytest.raises(SystemExit):
        compare.main(['--data', str(shapes), '--work-dir', str(tmp_path), *flags])
    assert '--points must be at least 1, and --finetune-points at least 0' in capsys.readouterr().err


def test_more_points_to_fine_tune_than_there_are(shapes, tmp_path, monkeypatch):
    argv = ['--data', str(shapes), '--methods', 'random', '--work-dir', str(tmp_path), '--finetune-points', '4']
    bench = bench_of([*argv, '--cfg-options', *batches_of_8('finetune')])
    asked = {}
    monkeypatch.setattr(bench, 'row', lambda training, epoch, finetune: asked.update({epoch: finetune}))
    bench.evaluate(Training('mae', 0, bench.downstream, tmp_path / 'mae/seed_0', [2, 4, 5]))
    assert asked == {2: True, 4: True, 5: True}


def test_refuses_figures_of_another_evaluation(shapes, tmp_path, monkeypatch):
    argv = ['--data', str(shapes), '--methods', 'random', '--work-dir', str(tmp_path)]
    argv += ['--cfg-options', *batches_of_8('finetune')]
    monkeypatch.setattr(Bench, 'row', lambda *args: dict(finetune_top1=50.0))
    bench_of(argv).run('random', 0)
    bench_of(argv).run('random', 0)
    other = bench_of([*argv, 'finetune.optim_wrapper.optimizer.lr=5e-4'])
    with pytest.raises(ValueError, match='random/seed_0/evaluation holds a run of other settings'):
        other.run('random', 0)


def test_refuses_options_that_change_nothing(shapes, tmp_path, capsys):
    argv = ['--data', str(shapes), '--methods', 'ebm', '--work-dir', str(tmp_path), '--cfg-options']
    with pytest.raises(SystemExit):
        compare.main([*argv, *batches_of_8('finetune', 'ebm'), 'ebm.max_epochs=3'])
    assert '--cfg-options max_epochs: "max_epochs" is a variable of the config file' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*argv, *batches_of_8('finetune', 'ebm'), 'emb.model.training_step.compile=False'])
    expected = '--cfg-options emb.model.training_step.compile: must begin with one of tokenizer, finetune'
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--seeds', '0'], '--seeds and --images must be at least 1'),
        (['--images', '0'], '--seeds and --images must be at least 1'),
        (['--methods', 'mae', 'mae'], '--methods mae mae: give different ones'),
        (
            ['--methods', 'mae', '--cfg-options', 'beit.optim_wrapper.optimizer.lr=1'],
            'must begin with one of tokenizer',
        ),
    ],
)
def test_refuses_what_has_no_meaning(shapes, tmp_path, capsys, argv, message):
    with pytest.raises(SystemExit):
        compare.main(['--data', str(shapes), '--work-dir', str(tmp_path / 'runs'), *argv])
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def bench_of(argv):
    return Bench(Comparison(**vars(compare.make_parser().parse_args(argv))))


def batches_of_8(*methods):
    return [f'{name}.train_dataloader.{key}' for name in methods for key in ('batch_size=8', 'num_workers=0')]


@pytest.mark.slow
def test_from_end_to_end_and_again(shapes, tmp_path, trained, capsys):
    """Two methods, one of them with its tokenizer, on 40 images; the second call trains nothing."""
    small = batches_of_8('ebm', 'beit', 'tokenizer', 'finetune')
    argv = ['--data', str(shapes), '--methods', 'ebm', 'beit', 'random', '--budget', 'epochs=2', '--seeds', '1']
    argv += ['--points', '2', '--work-dir', str(tmp_path)]
    argv += ['--cfg-options', *small, 'ebm.model.training_step.compile=False']
    argv += ['finetune.train_cfg.max_epochs=1', 'finetune.train_cfg.val_interval=1', 'finetune.param_scheduler=None']
    argv += ['finetune.val_dataloader.num_workers=0']
    compare.main(argv)
    folders = ['ebm/seed_0', 'ebm/seed_0/finetune_2', 'tokenizer/seed_0', 'beit/seed_0', 'beit/seed_0/finetune_2']
    assert trained == [*folders, 'random/seed_0/finetune_0']
    rows = json.loads((tmp_path / 'compare.json').read_text())
    assert [row['method'] for row in rows] == ['ebm', 'ebm', 'beit', 'beit', 'random']
    assert [row['epoch'] for row in rows] == [1, 2, 1, 2, 0]
    assert [row['finetune_top1'] is None for row in rows] == [True, False, True, False, False]
    for first, last in (rows[:2], rows[2:4]):
        assert last['gflops'] == pytest.approx(2 * first['gflops'], rel=1e-3)
        assert 0 < first['seconds'] < last['seconds']
        assert 0 < first['cpu_seconds'] < last['cpu_seconds']
        assert (last['learning_rate'], last['backbone']) == (1e-3, 'vit-w128')
    assert all(0 <= row[key] <= 100 for row in rows for key in ('knn_top1', 'linear_top1'))
    assert (rows[-1]['seconds'], rows[-1]['cpu_seconds'], rows[-1]['learning_rate']) == (0.0, 0.0, None)
    assert {path.name for path in tmp_path.glob('compare*')} == {
        'compare.json', 'compare.md', 'compare_epochs.png', 'compare_seconds.png', 'compare_gflops.png'
    }  # fmt: skip
    # A training goes on from the checkpoint with the optimiser, and its seconds are those of all steps so far.
    assert (tmp_path / 'ebm/seed_0/last_checkpoint').read_text().endswith('/epoch_2.pth')
    assert [len(step_seconds(tmp_path / f'ebm/seed_0/point_{epoch}.pth')) for epoch in (1, 2)] == [5, 10]
    before = (tmp_path / 'compare.json').read_text()
    trained.clear()
    compare.main(argv)
    assert trained == []
    assert (tmp_path / 'compare.json').read_text() == before
    with pytest.raises(SystemExit):
        compare.main([*argv, 'ebm.model.num_steps=2'])
    assert 'ebm/cost holds a run of other settings' in capsys.readouterr().err


def test_configs_of_cim_read_the_tokenizer_of_their_epochs(shapes, tmp_path, monkeypatch):
    """One for each number of epochs that a budget of seconds allows; and its cost is measured without it."""
    trained = []
    monkeypatch.setattr('mmebm.experiments.comparison.comparison.train', trained.append)
    monkeypatch.setattr(Bench, 'evaluate', lambda *_: None)
    monkeypatch.setattr(Bench, 'epochs', lambda self, method: dict(beit=2).get(method, 3))
    for budget, folders in (
        ('epochs=3', ['tokenizer/seed_0']),
        ('seconds=9', ['tokenizer/epochs_2/seed_0', 'tokenizer/epochs_3/seed_0']),
    ):
        trained.clear()
        methods = ['cim-revdet'] if budget == 'epochs=3' else ['beit', 'cim-revdet']
        bench = bench_of(['--data', str(shapes), '--methods', *methods, '--budget', budget, '--points', '1',
                          '--work-dir', str(tmp_path / budget), '--cfg-options',
                          *batches_of_8(*methods, 'tokenizer', 'finetune')])  # fmt: skip
        for method in methods:
            bench.run(method, seed=0)
        tokenizers, others = trained[::2], trained[1::2]
        assert [str(one.folder.relative_to(tmp_path / budget)) for one in tokenizers] == folders
        for tokenizer, other in zip(tokenizers, others, strict=True):
            model = other.cfg.model
            node = model.tokenizer.model if 'tokenizer' in model else model.target_generator
            assert node.init_cfg.checkpoint == str(tokenizer.checkpoint(tokenizer.points[-1]))
        assert others[-1].cfg.model.tokenizer.get('checked', True)
    cost = json.loads((tmp_path / 'seconds=9/cim-revdet/cost.json').read_text())
    assert cost['steps'] == 5 and 0.2 < cost['gflops_per_image'] < 2
