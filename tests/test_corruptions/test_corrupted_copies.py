"""Corrupted copies: written once by a CIM, and read as pairs."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
from tiny import ROOT, tiny_cim

from mmebm.commands import make_corrupted as command
from mmebm.corruptions import CorruptedCopy
from mmebm.datasets import BrokenImageError, Shapes
from mmebm.datasets.corrupted_files import name_of, write_corrupted
from mmebm.model_building import build_initialized

PACK = dict(type='PackInputs', meta_keys=('img_path', 'sample_idx'))
LOAD = dict(type='LoadImageFromFile', _scope_='mmebm')


def tiny(to_rgb=True):
    torch.manual_seed(0)
    preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=to_rgb)
    model = MODELS.build(tiny_cim(data_preprocessor=preprocessor))
    model.init_weights()
    return model


@pytest.fixture
def images(tmp_path):
    """Three images in two folders, two of one stem."""
    shapes, folder = Shapes(size=3, image_size=16), tmp_path / 'images'
    for i, name in enumerate(('a/one.png', 'a/one.bmp', 'b/two.png')):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), shapes[i]['img'])
    return folder


def folder_of(root, *transforms):
    pipeline = [LOAD, *transforms, PACK]
    return DATASETS.build(dict(type='mmebm.ImageFolder', data_root=str(root), pipeline=pipeline))


@pytest.mark.parametrize('to_rgb', [True, False])
def test_a_pair_of_folders(to_rgb, images, tmp_path):
    out, model = tmp_path / 'out', tiny(to_rgb)
    assert write_corrupted(model, folder_of(images), out, seed=3, batch_size=2) == 3
    names = ['a/one.bmp.png', 'a/one.png.png', 'b/two.png.png']
    for part in ('clean', 'corrupted'):
        assert sorted(str(path.relative_to(out / part)) for path in (out / part).rglob('*.png')) == names
    for name in names:
        original = cv2.imread(str(images / name.removesuffix('.png')))
        clean, corrupted = (cv2.imread(str(out / part / name)) for part in ('clean', 'corrupted'))
        assert abs(clean.astype(int) - original).max() <= 1  # normalised and back, in RGB or not
        assert not np.array_equal(clean, corrupted)
    # Squares of 4 pixels of the tokenizer's 27 colours.
    assert set(np.unique(corrupted)) <= {42, 43, 127, 128, 212, 213}

    again, other = tmp_path / 'again', tmp_path / 'other'
    write_corrupted(model, folder_of(images), again, seed=3, batch_size=2)
    write_corrupted(model, folder_of(images), other, seed=4, batch_size=2)
    read = [b''.join(p.read_bytes() for p in sorted((o / 'corrupted').rglob('*.png'))) for o in (out, again, other)]
    assert read[0] == read[1] != read[2]


def test_decoded_targets_differ_from_the_copies_in_whole_tokens(images, tmp_path):
    write_corrupted(tiny(), folder_of(images), tmp_path / 'out', target='decoded')
    clean, corrupted = (cv2.imread(str(tmp_path / 'out' / part / 'b/two.png.png')) for part in ('clean', 'corrupted'))
    differ = (clean != corrupted).any(axis=2)
    tokens = differ.reshape(4, 4, 4, 4)
    assert (tokens.any(axis=(1, 3)) == tokens.all(axis=(1, 3))).all()
    assert 0 < tokens.all(axis=(1, 3)).sum() <= 9


def test_images_without_files_are_numbered(tmp_path):
    shapes = Shapes(size=2, image_size=16, pipeline=[dict(type='PackInputs', meta_keys=('sample_idx',))])
    write_corrupted(tiny(), shapes, tmp_path / 'out')
    assert sorted(path.name for path in (tmp_path / 'out/corrupted').iterdir()) == ['000000.png', '000001.png']
    with pytest.raises(FileExistsError, match='out exists and is not an empty folder'):
        write_corrupted(tiny(), shapes, tmp_path / 'out')


def test_copies_are_read_as_pairs(images, tmp_path):
    out = tmp_path / 'out'
    write_corrupted(tiny(), folder_of(images), out)
    roots = dict(clean_root=str(out / 'clean'), corrupted_root=str(out / 'corrupted'))
    pair = dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.CorruptedCopy', **roots))
    sample = folder_of(out / 'clean', pair)[2]
    corrupted, clean = sample['inputs']
    for part, image in (('clean', clean), ('corrupted', corrupted)):
        assert image.permute(1, 2, 0).numpy().tolist() == cv2.imread(str(out / part / 'b/two.png.png')).tolist()
    dataset = folder_of(images, pair)
    with pytest.raises(ValueError, match=r"the image '.*images/a/one.bmp' is not below clean_root="):
        dataset[0]
    (out / 'corrupted/b/two.png.png').unlink()
    with pytest.raises(BrokenImageError, match=r'corrupted/b/two.png.png'):
        CorruptedCopy(**roots)(dict(img_path=str(out / 'clean/b/two.png.png')))
    with pytest.raises(FileNotFoundError, match="corrupted_root='nowhere' is no folder"):
        CorruptedCopy(**roots | dict(corrupted_root='nowhere'))


CONFIG = f"""
_base_ = '{ROOT}/configs/cim-revdet_vit-t_shapes.py'
model = dict(tokenizer=dict(model=dict(num_embed=32, width=8)), generator=dict(vocabulary=32))
_base_.test_dataloader.dataset.size = 4
"""


def test_the_command(tmp_path, capsys):
    (tmp_path / 'cim.py').write_text(CONFIG)
    cfg = Config.fromfile(tmp_path / 'cim.py')
    cfg.model.tokenizer.model.init_cfg = None
    torch.save(dict(state_dict=build_initialized(cfg).state_dict()), tmp_path / 'cim.pth')
    argv = [str(tmp_path / 'cim.py'), str(tmp_path / 'cim.pth'), str(tmp_path / 'out')]
    command.main(argv)
    out = capsys.readouterr().out
    assert f'4 images in {tmp_path}/out/clean' in out and 'mmebm.CorruptedCopy' in out
    assert len([*(tmp_path / 'out/corrupted').iterdir()]) == 4
    folder, image = tmp_path / 'images', np.random.default_rng(0).integers(0, 256, (40, 50, 3))
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), image.astype(np.uint8))
    command.main([*argv[:2], str(tmp_path / 'cut'), '--data', str(folder)])  # though the config's pipeline reads none
    assert cv2.imread(str(tmp_path / 'cut/corrupted/a.png.png')).shape == (32, 32, 3)
    capsys.readouterr()
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad/b.png').write_bytes(b'broken')
    steps = [LOAD, PACK]
    (tmp_path / 'uncut.py').write_text(f'{CONFIG}_base_.test_dataloader.dataset.pipeline = {steps}\n')
    for words, message in (
        (['ebm_vit-t_shapes', *argv[1:]], 'the config is of mmebm.EBMAlgorithm; corrupted copies are made by a CIM'),
        ([argv[0], str(tmp_path / 'none.pth'), argv[2]], 'No checkpoint'),
        (['cim-revdet_vit-t_shapes', *argv[1:]], 'of another architecture than the model of the config'),
        (argv, 'exists and is not an empty folder'),
        ([*argv[:2], str(tmp_path / 'seed'), '--seed', '-1'], '--seed must be at least 0 and below 2**63, not -1'),
        ([*argv[:2], str(tmp_path / 'broken'), '--data', str(tmp_path / 'bad')], 'bad/b.png: cannot be decoded'),
        (
            [str(tmp_path / 'uncut.py'), argv[1], str(tmp_path / 'uncut'), '--data', str(folder)],
            'images/a.png has 40 x 50 pixels behind the pipeline, and the model reads 32 x 32',
        ),
        ([*argv[:2], str(tmp_path / 'more'), '--data', str(tmp_path / 'nowhere')], 'is not a folder'),
    ):
        with pytest.raises(SystemExit):
            command.main(words)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('path', 'root', 'name'),
    [
        ('data/cat/a.jpg', 'data', 'cat/a.jpg.png'), ('/other/a.jpg', 'data', '000007_a.jpg.png'),
        ('data/../a.jpg', 'data', '000007_a.jpg.png'), ('../data/a.jpg', '', '000007_a.jpg.png'),
        (None, 'data', '000007.png'),
    ],
)  # fmt: skip
def test_copies_stay_within_their_folders(path, root, name):
    assert name_of(path, root, 7) == name
