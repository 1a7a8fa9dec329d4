import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from shrink import shrink

from mmebm.launch.options import replace_data_root
from mmebm.planning.config_facts import image_size

FOLDER = Path(__file__).parents[1] / 'configs'
# Those of CIM: test_cim_configs.py.
CONFIGS = sorted(path for path in FOLDER.glob('*.py') if not path.stem.startswith('cim-'))
# Those that restore patches have neither pairs nor an energy of whole images nor a step size.
PATCHES = [path for path in CONFIGS if Config.fromfile(path).model.type == 'mmebm.PatchEBM']
PAIRS = [path for path in CONFIGS if path not in PATCHES]

FIXED = ['backbone.pos_embed']  # where patches are restored, as in MAE; all other parameters must get a gradient


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return request.param


def test_the_list_of_configs():
    assert {path.stem for path in CONFIGS} >= {
        'ebm_vit-b_in1k',
        'ebm-mask_vit-b_in1k',
        'ebm-mask_vit-s_in1k',
        'ebm-patches_vit-b_in1k',
        'ebm-sort_vit-b_in1k',
        'ebm-sr_vit-b_in1k',
        'ebm-denoise_vit-b_in1k',
        'ebm-color_vit-b_in1k',
        'ebm-mix_vit-b_in1k',
        'ebm_vit-s_in1k',
        'ebm_vit-l_in1k',
        'ebm_swin-b_in1k',
        'ebm_convnext-t_in1k',
        'ebm_resnet50_in1k',
        'ebm_vit-t_cifar10',
        'ebm_vit-t_folder',
        'ebm_vit-t_shapes',
    }


@pytest.mark.parametrize(
    'path', [path for path in sorted(FOLDER.rglob('*.py')) if '_base_' not in path.parts], ids=lambda path: path.stem
)
def test_header_says_what_was_run(path):
    header = path.read_text().split('"""')[1]
    for field in ('Paper:', 'Command:', 'Hardware:', 'Time:', 'Expect:'):
        assert field in header
    assert f'configs/{path.relative_to(FOLDER)}' in header or 'make demo' in header


@pytest.mark.parametrize('config', PAIRS, ids=lambda path: path.stem)
def test_builds_at_full_size_and_scores_an_image(config):
    cfg = Config.fromfile(config)
    size = cfg.model.backbone.get('img_size', 224)
    model = MODELS.build(cfg.model).to('meta')  # shapes without arithmetic
    assert model.energy(torch.zeros(2, 3, size, size, device='meta')).shape == (2,)


@pytest.mark.parametrize('config', PATCHES, ids=lambda path: path.stem)
def test_builds_at_full_size_and_restores_patches(config):
    cfg = Config.fromfile(config)
    size = cfg.model.backbone.img_size
    model = MODELS.build(cfg.model).to('meta')
    images, draw = torch.zeros(2, 3, size, size, device='meta'), model.draw(2)
    features, contents = model.backbone(images, draw.visible, draw.position_dropped), model.head.codec.contents(images)
    assert model.head(features, model.head.codec.start(draw), contents, draw).shape == (2,)
    assert sum(indices.shape[1] for indices in draw) == (size // cfg.model.backbone.patch_size) ** 2


@pytest.mark.slow
def test_one_training_step_reaches_every_parameter(config, tmp_path):
    runner = Runner.from_cfg(shrink(Config.fromfile(config), str(tmp_path)))
    before = {name: p.clone() for name, p in runner.model.named_parameters()}
    gradients = {}
    for name, p in runner.model.named_parameters():
        p.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient)) if p.requires_grad else None
    runner.train()
    assert sorted(set(before) - set(gradients)) == (FIXED if config in PATCHES else [])
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('config', PAIRS, ids=lambda path: path.stem)
def test_the_step_size_has_no_weight_decay(config, tmp_path):
    runner = Runner.from_cfg(shrink(Config.fromfile(config), str(tmp_path)))
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    (decay,) = (
        group['weight_decay']
        for group in wrapper.optimizer.param_groups
        if any(p is runner.model.log_step_size for p in group['params'])
    )
    assert decay == 0


@pytest.mark.parametrize('name', [path.name for path in PAIRS if path.stem.endswith(('_in1k', '_folder'))])
def test_test_set_repeats_its_corruptions(name, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    cfg = Config.fromfile(CONFIGS[0].with_name(name))
    replace_data_root(cfg, cfg.test_data_root, str(tmp_path))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    corruptions, size = [], image_size(cfg)
    for i in range(len(dataset)):
        first, again = dataset[i]['inputs'], dataset[i]['inputs']
        assert first[0].equal(again[0]) and not first[0].equal(first[1])
        assert [tuple(view.shape) for view in first] == [(3, *size)] * 2
        corruptions.append(dataset[i]['data_samples'].corruption)
    without_name = 'sort' if 'vit' in name else 'mask'
    kind = name.split('_')[0].removeprefix('ebm').removeprefix('-') or without_name
    assert corruptions == (['mask', 'sort', 'sr', 'denoise', 'color'] if kind == 'mix' else [kind])


def test_cifar10_reads_cifar10(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rows = rng.integers(0, 256, (10, 3072)).astype(np.uint8)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        folder.joinpath(name).write_bytes(pickle.dumps(dict(data=rows, labels=list(range(10)))))
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
    cfg = Config.fromfile(CONFIGS[0].with_name('ebm_vit-t_cifar10.py'))

    train = DATASETS.build(cfg.train_dataloader.dataset | dict(data_root=str(tmp_path)))
    assert len(train) == 50
    assert [tuple(view.shape) for view in train[3]['inputs']] == [(3, 32, 32)] * 2

    corruptions, image = [], torch.from_numpy(rows[0].reshape(3, 32, 32))
    for held_out in cfg.test_dataloader.dataset.datasets:
        sample = DATASETS.build(held_out | dict(data_root=str(tmp_path)))[0]
        corruptions.append(sample['data_samples'].corruption)
        assert sample['inputs'][1].equal(image)
    assert corruptions == ['mask', 'sort', 'sr', 'denoise', 'color']
    luma = image.float().mul(torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)  # of red, green, blue
    torch.testing.assert_close(sample['inputs'][0][0].float(), luma, atol=0.51, rtol=0)
