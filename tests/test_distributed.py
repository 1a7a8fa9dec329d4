"""Two processes on halves of a batch are one process on the whole batch.

All that needs two processes runs in one pair of them, since they take seconds to start.
"""

import gc
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from shrink import shrink
from tiny import grouped
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.optim import SGD

from mmebm.engine.hooks.patch_whitening_hook import whiten
from mmebm.models.patch_codec import PatchSplit

pytestmark = pytest.mark.slow

WORLD_SIZE = 2
STEPS = 3
BATCH = 8
CONFIG = Path(__file__).parents[1] / 'configs' / 'ebm_vit-b_in1k.py'

# What is computed, and then how. All of the corrupted patches are kept, so that nothing is left to chance.
TWO_STEPS = dict(num_steps=2)
DROPPING = dict(token_dropping=dict(patch_size=4, visible=0.0, corrupted=0.5))
FORMULATIONS = {
    'default': dict(),
    'compiled': dict(compile=True),
    'recomputed attention': dict(attention='recomputed'),
    'micro-batches': dict(micro_batch=3),
    'low memory': dict(low_memory=True),
    'two steps': TWO_STEPS,
    'two steps, low memory, micro-batches': TWO_STEPS | dict(low_memory=True, micro_batch=3),
    'nce': dict(nce_weight=0.1),
    'token nce': dict(token_nce_weight=0.1),
    'token dropping': DROPPING,
    'token dropping, low memory, micro-batches': DROPPING | dict(low_memory=True, micro_batch=3),
}
PATCHES = {
    'patches': dict(),
    'patches, compiled': dict(compile=True),
    'patches, micro-batches': dict(micro_batch=3),
    'patches, low memory': dict(low_memory=True),
}
ACCUMULATED = ('default', 'micro-batches', 'low memory', 'token dropping', 'two steps')


def build_model(num_steps=1, step_size='auto', **options):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='mmebm.EBMAlgorithm',
                backbone=dict(
                    type='VisionTransformer',
                    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
                    img_size=8,
                    patch_size=4,
                    out_type='raw',
                ),
                head=dict(type='mmebm.EnergyHead', in_channels=16, kind='linear'),
                frozen=['backbone.ln1.bias'],
                num_steps=num_steps,
                step_size=step_size,
                **grouped(options),
            )
        )


def optimizer_of(model):
    return SGD([p for p in model.parameters() if p.requires_grad], 0.1)


def batches():
    """[corrupted, clean]; the right half is corrupted."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        clean = torch.randn(BATCH, 3, 8, 8, generator=generator)
        corrupted = clean.clone()
        corrupted[..., 4:] += torch.randn(BATCH, 3, 8, 4, generator=generator)
        yield [corrupted, clean]


def train(model, rank=0, world_size=1):
    """A few steps on this process's share; the first sets the step size."""
    optimizer = optimizer_of(model)
    for pair in batches():
        losses = model([view[rank::world_size] for view in pair], mode='loss')
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        optimizer.zero_grad()


def train_accumulating(model, rank, world_size):
    """As ``train``, in two halves of each share."""
    optim_wrapper = OptimWrapper(optimizer_of(model), accumulative_counts=2)
    optim_wrapper.initialize_count_status(model, 0, 2 * STEPS)
    for pair in batches():
        share = [view[rank::world_size] for view in pair]
        for half in zip(*(view.chunk(2) for view in share), strict=True):
            with optim_wrapper.optim_context(model):  # mmengine's train_step, without the data preprocessor
                loss = model(list(half), mode='loss')['loss']
            optim_wrapper.update_params(loss)


def run(work_dir, rank, optimizer, **options):
    """The weights after two epochs of a shipped config, and how many parameters have optimiser state here."""
    cfg = shrink(Config.fromfile(CONFIG), work_dir, image_size=32)
    cfg.train_dataloader.dataset.size = 8
    cfg.train_cfg.max_epochs = 2
    cfg.optim_wrapper.update(clip_grad=dict(max_norm=0.1), optimizer=cfg.optim_wrapper.optimizer | optimizer)
    if optimizer:
        cfg.custom_hooks.append(dict(type='mmebm.ShardedOptimizerHook'))
    # On a CPU: as mmebm's train command adapts a config.
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    cfg.update(launcher='pytorch', model_wrapper_cfg=wrapper, randomness=dict(seed=0), log_level='WARNING', **options)
    runner = Runner.from_cfg(cfg)
    runner.train()
    local = runner.optim_wrapper.optimizer
    return runner.model.module.state_dict(), len(getattr(local, 'optim', local).state)


def run_with_sharded_state(path, rank):
    zero = dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW')
    yield 'plain', run(f'{path}/plain', rank, dict())
    yield 'sharded', run(f'{path}/sharded', rank, zero)
    yield 'resumed', run(f'{path}/resumed', rank, zero, resume=True, load_from=f'{path}/sharded/epoch_1.pth')


def fsdp1(model):
    blocks = ModuleWrapPolicy([type(model.backbone.layers[0])])
    return MMFullyShardedDataParallel(model, device_id=torch.device('cpu'), auto_wrap_policy=blocks)


def fsdp2(model):
    mesh = init_device_mesh('cpu', (WORLD_SIZE,))
    for module in (*model.backbone.layers, model.backbone, model.head, model):
        fully_shard(module, mesh=mesh)
    return model


def build_patch_model(**options):
    """A ``PatchEBM`` whose draw is not left to chance."""
    torch.manual_seed(0)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='mmebm.PatchEBM',
                backbone=dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=8, patch_size=2, out_type='raw'),
                head=dict(
                    type='mmebm.PatchEnergyHead',
                    in_channels=16,
                    grid_size=(4, 4),
                    patch_size=2,
                    embed_dims=16,
                    num_heads=2,
                ),
                **grouped(options),
            )
        )
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    model.draw = lambda num_images, views: PatchSplit(*order.expand(num_images, -1).split([4, 4, 8], dim=1))
    return model


def train_patches(model, rank=0, world_size=1):
    """As ``train``, on the clean images."""
    optimizer = optimizer_of(model)
    for _, clean in batches():
        losses = model([clean[rank::world_size]], mode='loss')
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        optimizer.zero_grad()


def whitened(rank=0, world_size=1):
    """A patch embedding whitened by this process's share of a batch."""
    projection = build_model().backbone.patch_embed.projection
    _, clean = next(batches())
    whiten(projection, clean[rank::world_size], floor=0.01)
    return projection.state_dict()


def recipe_gradients(wrap, rank):
    """Gradients of the shipped recipe's losses on a process's share, by random numbers of its own."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(shrink(Config.fromfile(CONFIG), '').model)
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(WORLD_SIZE * 4, 3, 64, 64, generator=generator)
    corrupted = clean.clone()
    corrupted[..., 48:] = clean[..., 48:].roll(16, dims=2)  # a quarter of the patches change places
    wrapped = wrap(model)
    torch.manual_seed(rank + 2)  # behind the wrapper, which draws numbers, too
    losses = wrapped([view[rank::WORLD_SIZE] for view in (corrupted, clean)], mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def without_gradients(find_unused_parameters):
    """The error of two steps with a stage that the energy does not read, if there is one."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        swin = dict(
            type='SwinTransformer', arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]), out_indices=(0, 1)
        )
        swin |= dict(img_size=16, window_size=2, patch_size=2)
        head = dict(type='mmebm.EnergyHead', in_channels=16)
        model = MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=swin, head=head, step_size=1.0))
    model = MMDistributedDataParallel(model, find_unused_parameters=find_unused_parameters)
    try:
        for _ in range(2):
            clean = torch.randn(2, 3, 16, 16)
            model([clean.flip(2), clean], mode='loss')['loss'].backward()
    except ValueError as error:
        return str(error)
    return None


def predict(model):
    model.eval()
    with torch.no_grad():
        return [(sample.energies, sample.restored) for sample in model(next(batches()), mode='predict')]


def one_of_two(rank, path):
    import mmpretrain.models  # noqa: F401

    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', f'file://{path}/rendezvous', rank=rank, world_size=WORLD_SIZE)
    torch.compile = partial(torch.compile, backend='aot_eager')  # the same graphs as inductor's, in less time
    Runner._log_env = lambda *args: None  # calls compilers
    found = {}
    for name, options in FORMULATIONS.items():
        model = MMDistributedDataParallel(build_model(**options))  # find_unused_parameters is off
        train(model, rank, WORLD_SIZE)
        found[name] = model.module.state_dict()
        if name == 'compiled':
            found['is compiled'] = model.module.training_step.step.is_compiled
    for name in ACCUMULATED:
        model = MMDistributedDataParallel(build_model(step_size=1.0, **FORMULATIONS[name]))
        train_accumulating(model, rank, WORLD_SIZE)
        found[f'{name}, accumulated'] = model.module.state_dict()
    for name, options in PATCHES.items():
        model = MMDistributedDataParallel(build_patch_model(**options))
        train_patches(model, rank, WORLD_SIZE)
        found[name] = model.module.state_dict()
    for shard in (fsdp1, fsdp2):
        found[f'predicted under {shard.__name__}'] = predict(shard(build_model(**TWO_STEPS)))
    found['without gradients'] = [without_gradients(find) for find in (False, True)]
    found['whitened'] = whitened(rank, WORLD_SIZE)
    found['recipe'] = recipe_gradients(MMDistributedDataParallel, rank)
    found.update(run_with_sharded_state(path, rank))
    torch.save(found, f'{path}/rank{rank}.pth')
    del model
    gc.collect()  # as after a run of the commands: what is wrapped keeps threads of the group at work
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What each process found."""
    path = tmp_path_factory.mktemp('two_processes')
    mp.spawn(one_of_two, args=(str(path),), nprocs=WORLD_SIZE)
    return [torch.load(path / f'rank{rank}.pth', weights_only=True) for rank in range(WORLD_SIZE)]


def trained_alone(options, **others):
    """The weights of one process that computes the same in the default way."""
    what = ('num_steps', 'token_dropping', 'nce_weight', 'token_nce_weight')
    model = build_model(**{key: options[key] for key in what if key in options}, **others)
    train(model)
    return model.state_dict()


@pytest.mark.parametrize('name', FORMULATIONS)
def test_two_processes_train_the_same_weights_as_one(found, name):
    expected = trained_alone(FORMULATIONS[name])
    for weights in found:
        torch.testing.assert_close(weights[name], expected, rtol=1e-5, atol=1e-6)
    start = build_model().state_dict()
    moved = {name for name in start if not torch.equal(start[name], expected[name])}
    # So equality is not for want of training.
    assert set(start) - moved == {'backbone.ln1.bias'}


@pytest.mark.parametrize('name', PATCHES)
def test_two_processes_train_patches_as_one(found, name):
    model = build_patch_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train_patches(model)
    expected = model.state_dict()
    for weights in found:
        torch.testing.assert_close(weights[name], expected, rtol=1e-5, atol=1e-6)
    assert [key for key in start if torch.equal(start[key], expected[key])] == ['backbone.pos_embed']


def test_gradients_of_the_shipped_recipe_are_the_mean_of_both_shares(found):
    alone = [recipe_gradients(lambda model: model, rank) for rank in range(WORLD_SIZE)]
    for name, gradient in alone[0].items():
        assert not torch.equal(gradient, alone[1][name]) and gradient.any(), name
        for process in found:
            mean = (gradient + alone[1][name]) / 2
            torch.testing.assert_close(process['recipe'][name], mean, rtol=1e-4, atol=1e-7, msg=name)


def test_parameters_that_would_stop_the_second_step_are_named_in_the_first(found):
    for process in found:
        error, none = process['without gradients']
        assert none is None
        assert 'gradients of backbone.norm0.weight, backbone.norm0.bias, which the losses do not depend on' in error
        assert '`frozen`' in error and 'find_unused_parameters=True' in error


def test_it_was_compiled(found):
    assert all(process['is compiled'] for process in found)


@pytest.mark.parametrize('name', ACCUMULATED)
def test_accumulated_gradients_are_those_of_the_large_batch(found, name):
    expected = trained_alone(FORMULATIONS[name], step_size=1.0)
    for weights in found:
        torch.testing.assert_close(weights[f'{name}, accumulated'], expected, rtol=0, atol=1e-6)


def test_sharded_optimizer_state_trains_the_same_weights(found):
    for process in found:
        torch.testing.assert_close(process['sharded'][0], process['plain'][0], rtol=0, atol=0)
        torch.testing.assert_close(process['resumed'][0], process['plain'][0], rtol=0, atol=0)
    (_, whole), *_ = (process['plain'] for process in found)
    shares = [process['sharded'][1] for process in found]
    assert sum(shares) == whole and max(shares) < whole


@pytest.mark.parametrize('engine', ['fsdp1', 'fsdp2'])
def test_sharded_models_are_evaluated(found, engine):
    expected = predict(build_model(**TWO_STEPS))
    for process in found:
        torch.testing.assert_close(process[f'predicted under {engine}'], expected)


def test_patches_are_whitened_by_the_batches_of_all_processes(found):
    expected = whitened()
    for process in found:
        torch.testing.assert_close(process['whitened'], expected)
    assert not torch.allclose(whitened(0, WORLD_SIZE)['weight'], expected['weight'])  # by its own share alone
