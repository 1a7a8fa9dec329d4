"""Images of 1 and of 13 channels, 8 and 16 bits: the page's configs, from the files to metrics and pictures."""

import math

import cv2
import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmpretrain.registry import DATASETS, MODELS
from page_commands import code_blocks
from tiny import build_ebm, tiny_vit

from mmebm.apis import Restorer
from mmebm.datasets import BrokenImageError, LoadImage
from mmebm.datasets.decoding import pixels_in_header
from mmebm.evaluation.restoration_metric import RestorationMetric
from mmebm.launch.checks.channels import check_channels_of
from mmebm.visualization.restoration_sheet import pictures_of

PAGE = dict(zip(('bands', 'statistics', 'grey'), code_blocks('docs/channels.md'), strict=True))
LAYOUTS = dict(
    interleaved=dict(photometric='minisblack', planarconfig='contig'),
    planes=dict(photometric='minisblack', planarconfig='separate'),
    pages=dict(),
    compressed=dict(photometric='minisblack', planarconfig='contig', compression='zlib'),
)


def bands(height=72, width=80, seed=0):
    """An image (H, W, 13) of 0 to 10000, each channel of another mean."""
    coarse = np.random.default_rng(seed).integers(0, 5000, (6, 6, 13)) + 300 * np.arange(13)
    return coarse.repeat(height // 6, axis=0).repeat(-(-width // 6), axis=1)[:, :width].astype(np.uint16)


def write(path, image, layout='interleaved'):
    if layout in ('planes', 'pages'):
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
    tifffile.imwrite(path, image, **LAYOUTS[layout])
    return str(path)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Six images of 13 channels, and six grey ones."""
    folder = tmp_path_factory.mktemp('channels')
    for name in ('bands', 'grey'):
        (folder / name).mkdir()
    for i in range(6):
        image = bands(seed=i)
        write(folder / 'bands' / f'{i}.tif', image, [*LAYOUTS][i % 4])
        cv2.imwrite(str(folder / 'grey' / f'{i}.png'), (image[..., 0] // 20).astype(np.uint8))
    return folder


@pytest.mark.parametrize('layout', LAYOUTS)
def test_thirteen_channels_of_sixteen_bits(tmp_path, layout):
    image = bands()
    path = write(tmp_path / 'a.tif', image, layout)
    options = dict(color_type='unchanged', imdecode_backend='tifffile')
    loaded = LoadImage(**options, value_range=(0, 10000))(dict(img_path=path))['img']
    assert loaded.dtype == np.float32 and np.allclose(loaded, image * (255 / 10000), atol=1e-4)
    whole = LoadImage(**options)(dict(img_path=path))['img']
    assert np.allclose(whole, image / 257, atol=1e-4)


def test_what_opencv_cannot_decode_is_said_and_not_called_broken(tmp_path):
    path = write(tmp_path / 'a.tif', bands())
    with pytest.raises(ValueError, match=r"a\.tif: a TIFF of 13 channels.*imdecode_backend='tifffile' and color_type"):
        LoadImage(color_type='unchanged')(dict(img_path=path))  # a BrokenImageError is none
    with pytest.raises(ValueError, match=r"cannot be read with color_type='color'"):
        LoadImage(imdecode_backend='tifffile')(dict(img_path=path))


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = write(tmp_path / 'a.tif', bands())
    assert pixels_in_header((tmp_path / 'a.tif').read_bytes()) == (80, 72)
    with pytest.raises(BrokenImageError, match='has 80 x 72 pixels, more than max_pixels=5000'):
        LoadImage(color_type='unchanged', imdecode_backend='tifffile', max_pixels=5000)(dict(img_path=path))


@pytest.mark.parametrize('content', [b'', b'II*\0', b'II*\0\xff\xff\xff\xff', b'MM\0*\0\0\0\x08\0\x01'])
def test_damaged_files_are_broken(tmp_path, content):
    (tmp_path / 'a.tif').write_bytes(content)
    with pytest.raises(BrokenImageError, match=r'a\.tif'):
        LoadImage(color_type='unchanged', imdecode_backend='tifffile')(dict(img_path=str(tmp_path / 'a.tif')))


def test_without_tifffile_it_is_asked_for(monkeypatch):
    monkeypatch.setattr('mmcv.image.io.tifffile', None)
    with pytest.raises(ImportError, match='pip install tifffile'):
        LoadImage(imdecode_backend='tifffile')


def test_each_channel_is_normalised_by_its_own():
    mean, std = [10.0 * i for i in range(13)], [5.0 + i for i in range(13)]
    model = build_ebm(tiny_vit(in_channels=13), data_preprocessor=dict(mean=mean, std=std))
    images = torch.rand(2, 13, 8, 8) * 255
    data = model.data_preprocessor(dict(inputs=[images, images], data_samples=None), False)['inputs'][0]
    assert torch.allclose(data[1, 12], (images[1, 12] - 120) / 17, atol=1e-5)
    assert torch.allclose(model.to_pixels(data), images, atol=1e-3) and not model.state_dict().keys() & {'mean', 'std'}
    with pytest.raises(ValueError, match=r'data_preprocessor.mean has 13 values; .*std has 12 values\. Set'):
        build_ebm(tiny_vit(in_channels=13), data_preprocessor=dict(mean=mean, std=std[:12]))
    with pytest.raises(ValueError, match='must be lists of the same number of values'):
        build_ebm(data_preprocessor=dict(mean=mean, std=std[:12]))


def config_of(name, folders, tmp_path):
    (tmp_path / f'{name}.py').write_text(PAGE[name])
    cfg = Config.fromfile(tmp_path / f'{name}.py')
    check_channels_of(cfg)
    cfg.model.backbone.arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    cfg.model.head.in_channels = 16
    cfg.model.data_preprocessor = cfg.data_preprocessor
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(folders / name)
    return cfg


@pytest.mark.parametrize(('name', 'channels'), [('bands', 13), ('grey', 1)])
def test_the_page_s_config_trains_and_is_measured_and_drawn(name, channels, folders, tmp_path):
    cfg = config_of(name, folders, tmp_path)
    model = MODELS.build(cfg.model)
    model.init_weights()
    images = DATASETS.build(cfg.train_dataloader.dataset)
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    losses = [model.train_step(default_collate([images[i] for i in range(4)]), optimizer)['loss'] for _ in range(2)]
    assert all(torch.isfinite(loss) for loss in losses)

    held_out = DATASETS.build(cfg.test_dataloader.dataset)
    samples = model.eval().val_step(default_collate([held_out[0], held_out[1]]))
    assert samples[0].restored.shape == (channels, 64, 64)
    metric = RestorationMetric()
    metric.process(None, [sample.to_dict() for sample in samples])
    metrics = metric.compute_metrics(metric.results)
    assert all(math.isfinite(value) for value in metrics.values())
    drawn = pictures_of(samples[0])
    assert list(drawn) == ['clean', 'corrupted', 'restored', 'error']
    assert all(picture.shape == (64, 64, 3) for picture in drawn.values())
    mean = samples[0].clean.mean(dim=0).round()
    assert np.abs(drawn['clean'][..., 0].astype(float) - mean.numpy()).max() <= 1

    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)), tmp_path / 'a.pth')
    results = [*Restorer(tmp_path / 'a.pth').energy(folders / name)]
    assert len(results) == 6 and all(result.gradient.shape == (64, 64) for result in results)


def test_psnr_of_sixteen_bits_is_relative_to_white(folders, tmp_path):
    """A quarter of a constant image is off by 30 of 255: 20 log10(255 / 15) dB."""
    cfg = config_of('bands', folders, tmp_path)
    (tmp_path / 'flat').mkdir()
    write(tmp_path / 'flat' / 'a.tif', np.full((72, 80, 13), 4000, np.uint16))  # 102 in pixel units
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'flat')
    mask = dict(type='mmebm.PatchMask', ratio=0.25, patch_size=16, fill=132, seed=0)
    cfg.test_dataloader.dataset.pipeline[-2].corruption = mask
    model = MODELS.build(cfg.model).eval()
    sample = model.val_step(default_collate([DATASETS.build(cfg.test_dataloader.dataset)[0]]))[0]
    values = RestorationMetric().measure(sample.to_dict())
    assert values['psnr_corrupted_db'] == pytest.approx(20 * math.log10(17), abs=1e-3)


def test_the_page_s_statistics(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    exec(PAGE['statistics'].replace('FOLDER', 'bands'), {})
    mean, std = (eval(part + ']') for part in capsys.readouterr().out.replace('] [', ']|[').strip()[:-1].split(']|'))
    pixels = np.concatenate([bands(seed=i).reshape(-1, 13) for i in range(6)]) * (255 / 10000)
    assert np.allclose(mean, pixels.mean(axis=0), atol=0.06) and np.allclose(std, pixels.std(axis=0), atol=0.06)
