import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.registry import MODELS
from tiny import tiny_vit
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import distribute_tensor
from torch.optim import SGD

from mmebm.engine import ShardedOptimizerHook
from mmebm.launch.checks.engines import check_engine_config
from mmebm.launch.preparation import prepare_test, prepare_training
from mmebm.launch.scripts import load_script, run_script
from mmebm.models import EBMAlgorithm
from mmebm.models.selfsup.checks import check_engine

ALTERNATIVES = (
    'DistributedDataParallel',
    'ZeroRedundancyOptimizer',
    'micro_batch',
    'low_memory',
    'accumulative_counts',
)

REFUSED = {
    "strategy.type='FSDPStrategy'": dict(strategy=dict(type='FSDPStrategy')),
    "strategy.type='ColossalAIStrategy'": dict(strategy=dict(type='mmengine.ColossalAIStrategy')),
    "model_wrapper_cfg.type='MMFullyShardedDataParallel'": dict(
        model_wrapper_cfg=dict(type=MMFullyShardedDataParallel, sharding_strategy='SHARD_GRAD_OP')
    ),
    'strategy.zero_optimization.stage=2': dict(
        strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=2))
    ),
    'strategy.zero_optimization.stage=3': dict(
        strategy=dict(type='DeepSpeedStrategy', config=dict(zero_optimization=dict(stage=3)))
    ),
}
ALLOWED = [
    dict(),
    dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel')),
    dict(runner_type='FlexibleRunner', strategy=dict(type='DDPStrategy')),
    dict(strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=1))),
    dict(strategy=dict(type='DeepSpeedStrategy', bf16=dict(enabled=True))),
    dict(
        optim_wrapper=dict(optimizer=dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW')),
        custom_hooks=[dict(type='mmebm.ShardedOptimizerHook')],
    ),
    dict(compile=False),
    dict(compile=dict(disable=True)),
]


def config(model='mmebm.EBMAlgorithm', **engine):
    return Config(dict(model=dict(type=model), **engine))


@pytest.mark.parametrize('model', ['mmebm.EBMAlgorithm', 'mmebm.PatchEBM'])
@pytest.mark.parametrize('key', REFUSED)
def test_sharding_engines_are_refused_with_the_alternatives(key, model):
    with pytest.raises(ValueError, match='cannot pretrain') as caught:
        check_engine_config(config(model, **REFUSED[key]))
    assert str(caught.value).startswith(f'{key}: ')
    assert all(alternative in str(caught.value) for alternative in ALTERNATIVES)
    check_engine_config(config(model='ImageClassifier', **REFUSED[key]))  # fine-tuning


class SubclassOfTheUsers(EBMAlgorithm):
    """In mmpretrain's registry, by its bare name, as users register their models."""


@pytest.mark.parametrize('model', ['SubclassOfTheUsers', 'mmpretrain.SubclassOfTheUsers', SubclassOfTheUsers])
def test_subclasses_are_refused_wherever_they_are_registered(model, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'SubclassOfTheUsers', SubclassOfTheUsers)
    strategy = dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=2))
    with pytest.raises(ValueError, match='ZeRO-2 cannot pretrain'):
        check_engine_config(config(model, strategy=strategy))
    check_engine_config(config('NoSuchModel', strategy=strategy))  # which building the model reports


def test_deepspeeds_own_config_file_is_read(tmp_path):
    path = tmp_path / 'zero.json'
    path.write_text(json.dumps(dict(zero_optimization=dict(stage=3))))
    with pytest.raises(ValueError, match=r'^strategy.zero_optimization.stage=3: DeepSpeed ZeRO-3 cannot'):
        check_engine_config(config(strategy=dict(type='DeepSpeedStrategy', config=str(path))))


@pytest.mark.parametrize('compile', [True, dict(), dict(backend='inductor')], ids=str)
def test_mmengines_compile_is_refused(compile):
    with pytest.raises(ValueError, match='use model.training_step.compile=True instead'):
        check_engine_config(config(compile=compile))
    check_engine_config(config(model='ImageClassifier', compile=compile))


def test_a_sharded_optimizer_needs_its_hook():
    optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW'))
    with pytest.raises(ValueError, match=r"add dict\(type='mmebm.ShardedOptimizerHook'\) to custom_hooks"):
        check_engine_config(config(optim_wrapper=optim_wrapper, custom_hooks=[dict(type='mmebm.EpochSeedHook')]))


def test_the_hook_refuses_another_optimizer():
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(SGD(nn.Linear(1, 1).parameters(), 0.1)))
    with pytest.raises(ValueError, match='is for ZeroRedundancyOptimizer, not for SGD'):
        ShardedOptimizerHook().before_train(runner)


@pytest.mark.parametrize('engine', ALLOWED, ids=str)
def test_other_engines_pass(engine):
    check_engine_config(config(**engine))


def test_the_command_refuses_to_train_and_still_tests(tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    path = tmp_path / 'sharded.py'
    path.write_text(
        f"model = {MODEL}\nstrategy = dict(type='FSDPStrategy')\n"
        "test_dataloader = dict(dataset=dict(type='mmebm.Shapes', size=2, pipeline=[]))\n"
    )
    with pytest.raises(ValueError, match=r'^strategy\.type='):
        run_script(load_script('train'), [str(path)], prepare_training)
    script, tested = load_script('test'), []
    script.Runner = SimpleNamespace(from_cfg=lambda cfg: SimpleNamespace(test=lambda: tested.append(cfg.strategy.type)))
    torch.save(dict(state_dict=build().state_dict()), tmp_path / 'a.pth')
    run_script(script, [str(path), str(tmp_path / 'a.pth')], prepare_test)
    assert tested == ['FSDPStrategy']


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/rendezvous', rank=0, world_size=1)
    yield init_device_mesh('cpu', (1,))
    torch.distributed.destroy_process_group()


MODEL = dict(
    type='mmebm.EBMAlgorithm',
    backbone=tiny_vit(type='mmpretrain.VisionTransformer'),
    head=dict(type='mmebm.EnergyHead', in_channels=16),
)


def build():
    return MODELS.build(MODEL)


def fsdp1(model, mesh, **options):
    return MMFullyShardedDataParallel(model, device_id=torch.device('cpu'), **options)


def fsdp1_of_blocks(model, mesh):
    return fsdp1(model, mesh, auto_wrap_policy=ModuleWrapPolicy([TransformerEncoderLayer]))


def fsdp1_of_flat_parameters(model, mesh):
    return fsdp1(model, mesh, use_orig_params=False)


def fsdp2(model, mesh):
    return fully_shard(model, mesh=mesh)


def fsdp2_of_one_block(model, mesh):
    fully_shard(model.backbone.layers[0], mesh=mesh)
    return model


@pytest.mark.filterwarnings('ignore')  # of sharding over a single process
@pytest.mark.parametrize('shard', [fsdp1, fsdp1_of_blocks, fsdp1_of_flat_parameters, fsdp2, fsdp2_of_one_block])
def test_a_sharded_model_is_refused_on_its_first_batch(alone, shard):
    model = shard(build(), alone)
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match='^FSDP cannot pretrain') as caught:
        model([images, images + 1], mode='loss')
    assert all(alternative in str(caught.value) for alternative in ALTERNATIVES)


def test_parameters_of_deepspeed_and_of_tensor_parallelism_are_refused(alone):
    model = build()
    check_engine(model)
    model.backbone.cls_token.ds_id = 0  # as ZeRO-3 marks them
    with pytest.raises(ValueError, match='^DeepSpeed ZeRO-3 cannot pretrain'):
        check_engine(model)
    model = build()
    model.head.register_parameter('split', nn.Parameter(distribute_tensor(torch.ones(2), alone)))
    with pytest.raises(ValueError, match='^Tensor parallelism cannot pretrain'):
        check_engine(model)


def test_a_step_compiled_by_mmengine_is_refused_on_its_first_batch():
    model = build()
    model.train_step = torch.compile(model.train_step, backend='eager')  # what mmengine's runner does
    images = torch.randn(2, 3, 8, 8)
    optim_wrapper = OptimWrapper(SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match='use model.training_step.compile=True instead'):
        model.train_step(dict(inputs=[images, images + 1], data_samples=[]), optim_wrapper)
