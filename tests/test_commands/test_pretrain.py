"""From a folder to a backbone in one call."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmebm.apis import Restorer
from mmebm.commands import pretrain
from mmebm.config_files import find_config
from mmebm.evaluation.label_free import rankme
from mmebm.experiments import folder_probe
from mmebm.experiments.folder_run import BACKBONES, FolderRun, power_of_two, workers
from mmebm.launch.command_line import option
from mmebm.report.charts import charts
from mmebm.report.run import find_run
from mmebm.report.summary import verdict

TINY = [
    *('model.backbone.arch._delete_=True', 'model.backbone.arch.embed_dims=16', 'model.backbone.arch.num_layers=1'),
    *('model.backbone.arch.num_heads=2', 'model.backbone.arch.feedforward_channels=32', 'model.head.in_channels=16'),
    'train_dataloader.num_workers=0',
]
OPTIONS = dict(map(option, TINY))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images of two classes, red and blue, with a blank in each name."""
    folder, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for channel, name in ((0, 'red'), (2, 'blue')):
        (folder / name).mkdir()
        for i in range(20):
            image = rng.integers(0, 256, (8, 8, 3), np.uint8)
            image[..., channel] = 255
            Image.fromarray(image).resize((40, 48)).save(folder / name / f'image {i}.png')
    return folder


def call(folder, out, *words):
    pretrain.main([str(folder), '--out', str(out), '--image-size', '32', '--to', 'mmpretrain', *words])


@pytest.mark.slow
def test_a_folder_of_classes(folder, tmp_path, capsys):
    out = tmp_path / 'run'
    call(folder, out, '--epochs', '2', '--cfg-options', *TINY)
    printed = capsys.readouterr().out
    assert '40 images of' in printed and 'vit-tiny at 32 x 32 pixels, 2 epochs, batches of 8' in printed
    assert 'kNN and a linear probe' in printed
    cfg = Config.fromfile(out / 'pretrain.py')
    assert cfg.train_cfg.max_epochs == 2 and cfg.param_scheduler[-1].end == 2
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-3 * 8 / 16)
    assert (out / 'epoch_2.pth').is_file() and (out / 'backbone_mmpretrain').is_dir()
    provenance = json.loads((out / 'backbone_mmpretrain' / 'provenance.json').read_text())
    assert (provenance['images'], provenance['epochs'], provenance['data']) == (40, 2, folder.name)
    bank, queries = ((out / f'probe_{name}.txt').read_text().splitlines() for name in ('bank', 'queries'))
    assert (len(bank), len(queries)) == (32, 8) and not {*bank} & {*queries}
    assert queries[0] == 'blue/image 0.png 0' and queries[-1].endswith(' 1')
    frozen = [path.read_text() for path in out.glob('*/vis_data/frozen.json')]
    assert len(frozen) == 1 and 'frozen/linear_top1' in frozen[0]
    with pytest.raises(SystemExit):  # nothing is overwritten
        call(folder, out)
    assert 'exists and is not an empty folder; name a new one; or, to go on' in capsys.readouterr().err


def test_train_and_val(folder, tmp_path):
    (tmp_path / 'data').mkdir()
    for name in ('train', 'val'):
        (tmp_path / 'data' / name).symlink_to(folder)
    run = FolderRun(tmp_path / 'data', tmp_path / 'run', image_size=32, epochs=30, options=OPTIONS)
    cfg = run.prepare()
    hook = cfg.custom_hooks[-1]
    assert cfg.train_dataloader.dataset.data_root == str(tmp_path / 'data' / 'train')
    assert hook.queries.dataset.data_root == str(tmp_path / 'data' / 'val')
    assert hook.interval == cfg.default_hooks.checkpoint.interval == 3
    assert [len((run.out / f'probe_{name}.txt').read_text().splitlines()) for name in ('bank', 'queries')] == [40, 40]


def test_without_classes_rankme_is_measured(folder, tmp_path, capsys):
    run = FolderRun(folder / 'red', tmp_path / 'run', image_size=32, options=OPTIONS)
    hook = run.prepare().custom_hooks[-1]
    assert (
        hook.type == 'mmebm.FrozenFeatureHook' and 'bank' not in hook and hook.evaluator == [dict(type='mmebm.RankMe')]
    )
    assert (run.out / 'probe_queries.txt').read_text().splitlines()[:2] == ['image 0.png', 'image 1.png']
    assert 'no classes to probe, so RankMe of 20 images' in capsys.readouterr().out


def test_names_that_cannot_be_a_line_of_a_list_are_not_measured(tmp_path):
    names = ['a.png', ' b.png', 'c\n.png', 'caf\udce9.png', 'd é.png']
    assert folder_probe._spread(names) == ['a.png', 'd é.png']
    assert folder_probe._spread([(name, 0) for name in names]) == [('a.png', 0), ('d é.png', 0)]


def test_rankme_is_of_held_out_images_if_there_are_any(folder, tmp_path):
    (tmp_path / 'data').mkdir()
    for part, name in dict(train='red', val='blue').items():
        (tmp_path / 'data' / part).symlink_to(folder / name)
    queries = FolderRun(tmp_path / 'data', tmp_path / 'run', image_size=32, options=OPTIONS).prepare().custom_hooks[-1]
    assert queries.queries.dataset.data_root == str(tmp_path / 'data' / 'val')


@pytest.mark.parametrize(('cores', 'on_cpu', 'on_gpu'), [(None, 0, 1), (1, 0, 1), (2, 0, 1), (8, 2, 7), (64, 8, 8)])
def test_loaders_leave_the_cores_of_a_cpu_to_the_training(monkeypatch, cores, on_cpu, on_gpu):
    monkeypatch.setattr('os.cpu_count', lambda: cores)
    assert (workers(on_gpu=False), workers(on_gpu=True)) == (on_cpu, on_gpu)


def test_at_most_so_many_images_are_measured(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_probe, 'MOST', 7)
    run = FolderRun(folder / 'red', tmp_path / 'run', image_size=32, options=OPTIONS)
    run.prepare()
    assert [*map(len, [(run.out / 'probe_queries.txt').read_text().splitlines()])] == [7]


@pytest.mark.slow
def test_rankme_reaches_log_and_report(folder, tmp_path, capsys):
    """Its value before training is that of the untrained network's features of these images."""
    out = tmp_path / 'run'
    call(folder / 'red', out, '--epochs', '1', '--cfg-options', *TINY)
    (file,) = out.glob('*/vis_data/frozen.json')
    values = [json.loads(line)['frozen/rankme'] for line in file.read_text().splitlines()]
    assert len(values) == 2 and all(1 < value <= 16 for value in values)
    features = torch.stack([one.features for one in Restorer(out / 'epoch_1.pth').features(folder / 'red')])
    assert values[1] == pytest.approx(rankme(features), rel=1e-4)
    said = verdict(find_run(out, 'run'))
    assert f'RankMe {values[0]:.1f} at the start, {values[1]:.1f} at the end' in said
    assert any(chart['title'].startswith('Effective dimensions') for chart in charts([find_run(out, 'run')]))
    assert 'frozen/rankme' in (log := next(out.glob('*/*.log')).read_text())
    assert f'RankMe {values[1]:.1f} (first {values[0]:.1f})' in log
    assert '(20 images of the training images, which test_dataloader reads too)' in log


def test_options_win(folder, tmp_path):
    options = {'train_dataloader.batch_size': 4, 'optim_wrapper.optimizer.lr': 0.5}
    cfg = FolderRun(folder, tmp_path / 'run', image_size=32, options=OPTIONS | options).prepare()
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (4, 0.5)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--image-size', '36'], '--image-size 36 is no multiple of 8'),
        (['--epochs', '0'], '--epochs must be at least 1, not 0'),
        (['--cfg-options', 'corruption.share=0.3'], 'is a variable of the config file'),
    ],
)
def test_bad_options(folder, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        call(folder, tmp_path / 'run', *words)
    assert message in capsys.readouterr().err and not (tmp_path / 'run').exists()


def test_bad_folders(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    for name, message in (('empty', 'no image in'), ('none', '" is no folder')):
        with pytest.raises(SystemExit):
            call(tmp_path / name, tmp_path / 'run')
        assert message in capsys.readouterr().err


def test_every_backbone_has_a_config():
    for name in BACKBONES.values():
        cfg = Config.fromfile(find_config(name))
        assert cfg.auto_scale_lr.base_batch_size and cfg.model.type == 'mmebm.EBMAlgorithm'


def test_power_of_two():
    assert [power_of_two(number) for number in (0.5, 1, 37.5, 64, 300)] == [1, 1, 32, 64, 256]
