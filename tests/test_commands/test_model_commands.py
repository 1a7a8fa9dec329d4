"""The commands that apply a trained model: restore, energy, embed; and browse-corruptions, which needs none."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import save_ebm

from mmebm.apis import Restorer
from mmebm.commands import browse_corruptions, embed, energy, restore
from mmebm.datasets import Shapes
from mmebm.error_text import printable


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'epoch_1.pth'
    save_ebm(path, step_size=100.0)  # whose steps can be seen
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    shapes = Shapes(size=6, split='val')
    for i in range(6):
        Image.fromarray(shapes.draw(i).img[..., ::-1]).save(folder / f'{i}.png')
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
    return folder


@pytest.mark.parametrize('ending', ['csv', 'parquet'])
def test_energy(checkpoint, folder, tmp_path, capsys, ending):
    pandas = pytest.importorskip('pandas')
    out = tmp_path / f'table.{ending}'
    energy.main([str(folder), '--checkpoint', str(checkpoint), '--out', str(out), '--show', '2'])
    frame = pandas.read_csv(out) if ending == 'csv' else pandas.read_parquet(out)
    assert list(frame.columns) == ['path', 'energy', 'percentile', 'z'] and len(frame) == 6
    expected = {one.source: one.energy for one in Restorer(checkpoint).energy(folder)}
    assert dict(zip(frame.path, frame.energy, strict=True)) == pytest.approx(expected, abs=1e-5)
    assert frame.energy.is_monotonic_decreasing
    assert frame.percentile.tolist() == pytest.approx([100 * (6 - i) / 6 for i in range(6)])
    assert frame.z.mean() == pytest.approx(0, abs=1e-9) and frame.z.std(ddof=0) == pytest.approx(1)
    about = json.loads((tmp_path / f'table.{ending}.json').read_text())
    assert about['polarity'] == 'higher energy = less like the training images'
    assert about['provenance'] == dict(images=5) and [*about['skipped']] == [str(folder / 'broken.jpg')]
    printed = capsys.readouterr().out
    assert '6 images; higher energy = less like the training images' in printed and '1 broken file' in printed


def test_embed_npy(checkpoint, folder, tmp_path, capsys):
    out = tmp_path / 'features.npy'
    embed.main([str(folder), '--checkpoint', str(checkpoint), '--out', str(out)])
    features, paths = np.load(out), (tmp_path / 'features.txt').read_text().splitlines()
    expected = [(one.source, one.features.numpy()) for one in Restorer(checkpoint).features(folder)]
    assert paths == [source for source, _ in expected]
    assert features.dtype == np.float32 and np.allclose(features, [vector for _, vector in expected])
    assert not list(tmp_path.glob('*.part')) and '6 images, 16 features each' in capsys.readouterr().out


def test_embed_parquet_of_a_layer(checkpoint, folder, tmp_path):
    pandas = pytest.importorskip('pandas')
    out = tmp_path / 'features.parquet'
    embed.main([str(folder), '--checkpoint', str(checkpoint), '--out', str(out), '--layer', '0'])
    frame = pandas.read_parquet(out)
    expected = [one.features.numpy() for one in Restorer(checkpoint).features(folder, layer=0)]
    assert np.allclose(np.stack(frame.features), expected)


def test_restore_picture_and_animation(checkpoint, folder, tmp_path, capsys):
    command = [str(folder / '0.png'), str(folder / '1.png'), '--checkpoint', str(checkpoint), '--steps', '3']
    restore.main([*command, '--out', str(tmp_path / 'steps.png')])
    assert np.asarray(Image.open(tmp_path / 'steps.png')).std() > 10
    restore.main([*command, '--out', str(tmp_path / 'steps.webp'), '--corruption', 'denoise'])  # not of the config
    with Image.open(tmp_path / 'steps.webp') as film:
        assert film.n_frames == 4 and film.size == (3 * 128, 2 * 128)
        first = np.asarray(film.convert('RGB'))
    clean = np.asarray(Image.open(folder / '0.png')).repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(first[:128, :128], clean)
    assert np.array_equal(first[:, 128:256], first[:, 256:])  # before the first step
    assert f'{folder / "0.png"}: energy ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('command', 'words', 'message'),
    [
        (energy, ['--out', 'table.xlsx'], '--out table.xlsx: the name must end in .csv or .parquet'),
        (energy, ['--out', 'nowhere/table.csv'], 'there is no folder "nowhere"'),
        (energy, ['--show', '0'], '--show must be at least 1'),
        (embed, ['--out', 'features.txt'], 'must end in .npy or .parquet'),
        (embed, ['--layer', '7'], 'layer 7 of VisionTransformer, which has 2 blocks'),
        (restore, ['--out', 'film.gif'], 'must end in .png'),
        (
            restore,
            ['--corruption', 'rain'],
            "corruption='rain' is neither one of the config (mask) nor the name (mask",
        ),
        (restore, ['--steps', '0'], 'num_steps must be a whole number of at least 1'),
        (embed, ['--batch-size', '0'], 'batch_size must be a whole number of at least 1'),
    ],
)
def test_bad_options_end_with_a_line(checkpoint, folder, tmp_path, monkeypatch, capsys, command, words, message):
    if command is energy:
        pytest.importorskip('pandas')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        command.main([str(folder), '--checkpoint', str(checkpoint), *words])
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_tables_without_pandas(checkpoint, folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'pandas', None)
    with pytest.raises(SystemExit):
        energy.main([str(folder), '--checkpoint', str(checkpoint)])
    assert 'pip install "mmebm[tables]"' in capsys.readouterr().err


def test_browse_corruptions(tmp_path, capsys):
    out = tmp_path / 'pairs.png'
    browse_corruptions.main(['ebm_vit-t_shapes', '--split', 'test', '--images', '2', '--out', str(out)])
    assert np.asarray(Image.open(out)).std() > 10
    assert capsys.readouterr().out.startswith('mask: 2\nsort: 2\nsr: 2\ndenoise: 2\ncolor: 2\n')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['ebm-patches_vit-t_shapes-64px'], 'the pipeline makes no pairs of corrupted and clean images'),
        (['ebm_vit-t_shapes', '--images', '0'], '--images must be at least 1, not 0'),
        (['ebm_vit-t_folder', '--split', 'val'], '--split val: the config has no val_dataloader'),
        (['ebm_vit-t_folder'], 'does not exist'),
        (['ebm_vit-q'], 'No config file "ebm_vit-q"'),
    ],
)
def test_what_cannot_be_browsed(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        browse_corruptions.main([*words, '--out', str(tmp_path / 'pairs.png')])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('ending', ['csv', 'parquet'])
def test_paths_that_are_no_utf8_and_have_brackets(checkpoint, folder, tmp_path, capsys, ending):
    pandas = pytest.importorskip('pandas')
    images = tmp_path / 'x['
    (images / 'a]b').mkdir(parents=True)
    names = [os.fsdecode(b'caf\xe9 [red].png'), 'a]b/cat [dQw4].png']
    for name in names:
        shutil.copy(folder / '0.png', images / name)
    out = tmp_path / f'table.{ending}'
    energy.main([str(images), '--checkpoint', str(checkpoint), '--out', str(out)])
    paths = {str(images / name) for name in names}
    if ending == 'csv':
        with out.open(errors='surrogateescape') as file:
            assert {row['path'] for row in csv.DictReader(file)} == paths
    else:
        assert {*pandas.read_parquet(out).path} == {*map(printable, paths)}
    printed = ''.join(capsys.readouterr().out.split())
    assert '[dQw4].png' in printed and '[red].png' in printed
    embed.main([str(images), '--checkpoint', str(checkpoint), '--out', str(tmp_path / 'features.parquet')])
    assert {*pandas.read_parquet(tmp_path / 'features.parquet').path} == {*map(printable, paths)}
