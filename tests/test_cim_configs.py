"""The shipped configs of corrupted image modelling."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from shrink import TINY_BACKBONES, TINY_WIDTHS
from tiny import ColorTokenizer  # noqa: F401  (registered)

from mmebm.launch.checks.pretrained import check_load_from, check_pretrained
from mmebm.models import VQVAE, FrozenTokenizer

FOLDER = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(FOLDER.glob('cim-*.py'))


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    return Config.fromfile(request.param)


def shrunk(cfg, work_dir):
    """Tiny networks and images, a tokenizer that needs no training, two steps."""
    model = cfg.model
    backbone, trunk, size = model.backbone, model.generator.backbone, min(64, model.generator.backbone.img_size)
    backbone.update(TINY_BACKBONES[backbone.type])
    if 'img_size' in backbone:
        backbone.img_size = size
    model.head.in_channels = TINY_WIDTHS[backbone.type]
    trunk.arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    trunk.img_size, model.generator.vocabulary = size, 27
    stride = model.tokenizer.model.downsampling
    model.tokenizer.model = dict(type='mmebm.ColorTokenizer', stride=stride)
    model.tokenizer.update(mean=[0.0] * 3, std=[255.0] * 3)
    pipeline = [step for step in cfg.train_dataloader.dataset.pipeline if 'LoadImage' not in step['type']]
    for step in pipeline:
        if step['type'] == 'RandomResizedCrop':
            step['scale'] = size
    cfg.train_dataloader.update(batch_size=2, num_workers=0)
    cfg.train_dataloader.dataset = dict(type='mmebm.Shapes', size=4, image_size=size, pipeline=pipeline)
    optimizer = {name: cfg.optim_wrapper[name] for name in ('optimizer', 'paramwise_cfg', 'constructor', 'clip_grad')}
    cfg.optim_wrapper = dict(type='OptimWrapper', **optimizer)
    cfg.param_scheduler = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmebm.FrozenFeatureHook']
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    cfg.update(test_cfg=None, test_dataloader=None, test_evaluator=None)
    cfg.update(resume=False, work_dir=str(work_dir), experiment_name=str(work_dir).replace('/', '_'))
    return cfg


def test_the_list_of_configs():
    tasks, networks = ('respix', 'revdet'), ('resnet50_in1k', 'vit-b_in1k', 'vit-s_in1k', 'vit-t_shapes')
    assert [path.stem for path in CONFIGS] == [f'cim-{task}_{network}' for task in tasks for network in networks]


def test_parts_fit_at_full_size(cfg):
    size = cfg.model.generator.backbone.img_size
    model = MODELS.build(cfg.model)
    grid = (size // model.tokenizer.stride,) * 2
    assert model.generator.grid == grid
    model.to('meta')
    output = model.head(model.backbone(torch.zeros(2, 3, size, size, device='meta')))
    assert output.shape == ((2, 3, size, size) if cfg.model.head.type == 'mmebm.ResPixHead' else (2, *grid))


def test_the_tokenizer_is_that_of_the_config_that_trains_it(cfg):
    size = 'in1k' if 'data_root' in cfg else 'shapes'
    trained = Config.fromfile(FOLDER / 'tokenizers' / f'vqvae_{size}.py')
    model = dict(cfg.model.tokenizer.model)
    checkpoint = model.pop('init_cfg')['checkpoint']
    assert model == trained.model
    assert checkpoint == f'work_dirs/vqvae_{size}/epoch_{trained.train_cfg.max_epochs}.pth'
    assert cfg.model.tokenizer.mean == trained.data_preprocessor.mean
    assert cfg.model.tokenizer.std == trained.data_preprocessor.std


@pytest.mark.slow
def test_a_training_reaches_every_parameter(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenTokenizer, 'check', lambda self, pixels: None)  # squares of one colour do not pass
    runner = Runner.from_cfg(shrunk(cfg, tmp_path))
    gradients = {}
    for name, p in runner.model.named_parameters():
        if p.requires_grad:
            p.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient))
    trained = {name for name, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    assert trained == set(gradients) and not any(name.startswith('tokenizer.') for name in trained)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_masks_and_positions_have_no_weight_decay(cfg, tmp_path):
    runner = Runner.from_cfg(shrunk(cfg, tmp_path))
    groups = runner.build_optim_wrapper(runner.optim_wrapper).optimizer.param_groups
    decays = {p: group['weight_decay'] for group in groups for p in group['params']}
    for name, p in runner.model.named_parameters():
        if p.requires_grad and (p.dim() < 2 or name.endswith(('pos_embed', 'token', 'bias_table'))):
            assert decays[p] == 0, name


def test_a_missing_tokenizer_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r'vqvae_shapes/epoch_4.pth".*model.tokenizer.model.init_cfg.checkpoint'
    ):
        check_pretrained(Config.fromfile(CONFIGS[3]))


def test_a_tokenizer_of_another_size_is_named_before_training(tmp_path):
    cfg = Config.fromfile(FOLDER / 'cim-respix_vit-t_shapes.py')
    path = tmp_path / 'tokenizer.pth'
    cfg.model.tokenizer.model.init_cfg.checkpoint = str(path)
    torch.save(VQVAE(num_embed=16).state_dict(), path)
    with pytest.raises(ValueError, match=r'tokenizer.pth is of another architecture than VQVAE: .*quantizer'):
        check_pretrained(cfg)
    torch.save(VQVAE(num_embed=512).state_dict(), path)
    check_pretrained(cfg)


def test_another_objective_starts_from_the_networks_of_one(tmp_path):
    cfgs = [Config.fromfile(FOLDER / f'cim-{task}_vit-t_shapes.py') for task in ('respix', 'revdet')]
    torch.save(MODELS.build(cfgs[0].model).state_dict(), tmp_path / 'respix.pth')
    cfgs[1].load_from = str(tmp_path / 'respix.pth')
    with pytest.warns(UserWarning, match='these weights train anew: .*head.projection'):
        check_load_from(cfgs[1])
