"""Two processes on halves of a batch are one process on the whole batch."""

import torch
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch.optim import SGD

WORLD_SIZE = 2


def build_model():
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
            )
        )


def train(model, rank=0, world_size=1, steps=3):
    """A few steps on this process's share of batches of four; the first sets the step size."""
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        clean = torch.randn(4, 3, 8, 8, generator=generator)
        pair = [clean + torch.randn(clean.shape, generator=generator), clean]
        model([view[rank::world_size] for view in pair], mode='loss')['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()


def train_one_of_two(rank, path):
    import mmpretrain.models  # noqa: F401

    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{path}/rendezvous', rank=rank, world_size=WORLD_SIZE)
    model = MMDistributedDataParallel(build_model())  # find_unused_parameters is off
    train(model, rank, WORLD_SIZE)
    torch.save(model.module.state_dict(), f'{path}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_same_weights_as_one(tmp_path):
    mp.spawn(train_one_of_two, args=(str(tmp_path),), nprocs=WORLD_SIZE)
    alone = build_model()
    start = {name: value.clone() for name, value in alone.state_dict().items()}
    train(alone)
    expected = alone.state_dict()
    for rank in range(WORLD_SIZE):
        weights = torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    moved = {name for name in start if not torch.equal(start[name], expected[name])}
    assert set(start) - moved == {'backbone.ln1.bias'}  # so equality is not for want of training
