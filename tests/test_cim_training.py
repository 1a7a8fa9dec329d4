"""Corrupted image modelling, and its generator as a corruption, on several processes and resumed."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from shrink import shrink
from test_cim_configs import shrunk
from tiny import build_ebm, save_cim, tiny_cim, tiny_vit
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import interpolate

from mmebm.models import FrozenTokenizer

pytestmark = pytest.mark.slow

WORLD_SIZE, BATCH, STEPS = 2, 4, 3
LAST = ['head.projection.0.weight', 'generator.head.weight']
CONFIGS = Path(__file__).parents[1] / 'configs'
CONFIG = CONFIGS / 'cim-revdet_vit-t_shapes.py'


def build():
    """A model that leaves nothing to chance: fixed masks, and the most probable tokens."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(tiny_cim('revdet', generator=dict(temperature=1e-9)))
        model.init_weights()
    model.generator.draw_places = lambda golden, rng: torch.arange(0, 16, 2).expand(len(golden), -1)
    return model.train()


def build_corrupted(folder):
    """An EBM of images that a generator corrupts, with as little left to chance."""
    torch.manual_seed(0)
    corruption = dict(type='mmebm.GeneratorCorruption', checkpoint=f'{folder}/cim.pth', temperature=1e-9)
    preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        options = dict(step_size=0.1, token_nce_weight=0.1, data_preprocessor=preprocessor)
        model = build_ebm(tiny_vit(img_size=16), corruption=corruption, **options)
        model.init_weights()
    model.corruption.cim.generator.draw_places = lambda golden, rng: torch.arange(0, 16, 2).expand(len(golden), -1)
    return model.train()


def train(model, rank=0, world_size=1):
    """A few steps on this process's share of batches."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    rng = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images = (interpolate(torch.rand(BATCH, 3, 3, 3, generator=rng), (16, 16), mode='bilinear') * 255 - 127.5) / 64
        losses = model([images[rank::world_size]], mode='loss')
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        optimizer.zero_grad()


def sharded(model):
    """By FSDP 2; the tokenizer, which has no gradients, is left whole."""
    mesh = init_device_mesh('cpu', (WORLD_SIZE,))
    generator = model.generator
    for module in (*model.backbone.layers, model.backbone, model.head, *generator.backbone.layers, generator):
        fully_shard(module, mesh=mesh)
    return model


def whole(state):
    """A state dict whose sharded weights are put together."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def work(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=WORLD_SIZE)
    wrapped = MMDistributedDataParallel(build())
    train(wrapped, rank, WORLD_SIZE)
    torch.save(wrapped.module.state_dict(), f'{folder}/ddp_{rank}.pth')
    wrapped = MMDistributedDataParallel(build_corrupted(folder))
    train(wrapped, rank, WORLD_SIZE)
    torch.save(wrapped.module.state_dict(), f'{folder}/corrupted_{rank}.pth')
    model = sharded(build())
    train(model, rank, WORLD_SIZE)
    torch.save(whole(model.state_dict()), f'{folder}/fsdp_{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cim')
    save_cim(folder / 'cim.pth')
    mp.spawn(partial(work, folder=folder), nprocs=WORLD_SIZE)
    return folder


@pytest.mark.parametrize('engine', ['ddp', 'fsdp', 'corrupted'])
def test_two_processes_are_one(folder, engine):
    make = partial(build_corrupted, folder) if engine == 'corrupted' else build
    model = make()
    train(model)
    start, end = make().state_dict(), model.state_dict()
    for rank in range(WORLD_SIZE):
        state = torch.load(folder / f'{engine}_{rank}.pth')
        for name, value in end.items():
            torch.testing.assert_close(state[name], value, msg=lambda text, name=name: f'{name}: {text}')
    for name in ['backbone.layers.0.ffn.layers.1.weight'] if engine == 'corrupted' else LAST:
        assert not start[name].allclose(end[name])


def test_a_resumed_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenTokenizer, 'check', lambda self, pixels: None)  # squares of one colour do not pass
    states = []
    for name, options in (('whole', {}), ('resumed', dict(resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth')))):
        cfg = shrunk(Config.fromfile(CONFIG), tmp_path / name)
        cfg.train_cfg.max_epochs = 2
        cfg.update(options)
        runner = Runner.from_cfg(cfg)
        runner.train()
        states.append(runner.model.state_dict())
    assert all(value.equal(states[1][name]) for name, value in states[0].items())
    first = torch.load(tmp_path / 'whole/epoch_1.pth', weights_only=False)['state_dict']
    assert not states[0]['generator.head.weight'].equal(first['generator.head.weight'])


@pytest.fixture
def corrupted_cfg(tmp_path, monkeypatch):
    """Makes the config of the generator's corruption, shrunk to two epochs, and its work dir."""
    monkeypatch.setattr(FrozenTokenizer, 'check', lambda self, pixels: None)
    preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
    save_cim(tmp_path / 'cim.pth', size=32, data_preprocessor=preprocessor)

    def make(name, **options):
        cfg = shrink(Config.fromfile(CONFIGS / 'ebm-generator_vit-t_shapes.py'), str(tmp_path / name))
        cfg.model.corruption.checkpoint = str(tmp_path / 'cim.pth')
        cfg.train_dataloader.dataset.size = 6
        cfg.train_cfg.max_epochs = 2
        cfg.update(options)
        return cfg

    return make


def test_a_resumed_training_on_corrupted_images_ends_in_the_same_weights(corrupted_cfg, tmp_path):
    states = []
    for name, options in (('whole', {}), ('resumed', dict(resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth')))):
        runner = Runner.from_cfg(corrupted_cfg(name, **options))
        gradients = {}
        for key, p in runner.model.named_parameters():
            p.register_hook(lambda gradient, key=key, found=gradients: found.__setitem__(key, gradient))
        runner.train()
        assert {*gradients} == {key for key, _ in runner.model.named_parameters()}
        states.append(runner.model.state_dict())
    assert all(value.equal(states[1][name]) for name, value in states[0].items())
    first = torch.load(tmp_path / 'whole/epoch_1.pth', weights_only=False)['state_dict']
    assert not states[0]['backbone.cls_token'].equal(first['backbone.cls_token'])
    assert not any('corruption' in name or 'generator' in name for name in first)
