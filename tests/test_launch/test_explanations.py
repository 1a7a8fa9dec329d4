"""Errors of other packages name the part of the config that they come from."""

import socket

import pytest
import torch
from mmengine.config import Config
from tiny import tiny_vit

from mmebm.launch.explanations import explained
from mmebm.launch.machine import adapt_to_cpu
from mmebm.model_building import build

CONFIG = dict(
    model=dict(type='mmebm.EBMAlgorithm', backbone=tiny_vit(), head=dict(type='mmebm.EnergyHead', in_channels=16)),
    train_dataloader=dict(batch_size=8),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tiny.py').touch()


def config(**options):
    cfg = Config(CONFIG, filename='tiny.py')
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        (
            'model.backbone.img_size',
            'large',
            r"model\.backbone \(type='VisionTransformer'\) cannot be built: \w+Error: ",
        ),
        ('model.head.no_such', 1, r"model\.head \(type='mmebm\.EnergyHead'\) cannot .*unexpected keyword .*'no_such'"),
        ('model.backbone.arch.embed_dims', None, r"model\.backbone \(type='VisionTransformer'\) cannot be built: Type"),
    ],
)
def test_a_part_that_cannot_be_built(key, value, message):
    cfg = config(**{key: value})
    with (
        pytest.raises(
            (TypeError, ValueError, RuntimeError),
            match=message + r'(?s:.*)Correct it in tiny\.py, or by --cfg-options$',
        ),
        explained([cfg]),
    ):
        build(cfg.model)


def test_own_errors_and_those_before_a_config_pass_unchanged():
    with pytest.raises(ValueError, match=r'^EBMAlgorithm: num_steps must be'), explained([config()]):
        build(config(**{'model.num_steps': 0}).model)
    with pytest.raises(TypeError), explained([]):
        build(config(**{'model.head.no_such': 1}).model)
    with pytest.raises(ZeroDivisionError), explained([config()]):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_full_memory_says_what_to_lower(error):
    with pytest.raises(MemoryError) as caught, explained([config()]):
        raise error
    first, *advice = str(caught.value).splitlines()
    assert first in str(error) and 'batch' in ''.join(advice)


def test_a_process_that_meets_no_other_ends_in_time_and_says_so(monkeypatch):
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = str(listener.getsockname()[1])
    for name, value in dict(RANK='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port).items():
        monkeypatch.setenv(name, value)
    cfg = config(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo', timeout=1)))
    with (
        pytest.raises(RuntimeError, match=f'(?s)Rank 1 of 2 does not reach the others by 127.0.0.1:{port}.*--resume'),
        explained([cfg]),
    ):
        adapt_to_cpu(cfg)
    for seconds in ('soon', 0):
        cfg.env_cfg.dist_cfg.timeout = seconds
        with pytest.raises(ValueError, match=f'env_cfg.dist_cfg.timeout={seconds!r} must be a number'):
            adapt_to_cpu(cfg)
