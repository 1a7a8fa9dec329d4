"""Which engines can pretrain by restoration; the others are refused before they train anything.

Training differentiates through a gradient. Engines that shard the parameters gather and free them in hooks, which count
on one backward pass a step: with two, weights get no gradient or never move, and mostly there is no error.
``docs/engines.md`` says what was tried. Evaluation, and the training of other models, are not checked.
"""

from collections.abc import Iterator
from typing import Any

import mmengine
from mmengine.config import Config
from torch import nn
from torch.distributed.tensor import DTensor

PRETRAINING = {'EBMAlgorithm', 'PatchEBM'}

# Training strategies and model wrappers of mmengine that shard parameters or gradients.
SHARDING = {'FSDPStrategy', 'MMFullyShardedDataParallel', 'ColossalAIStrategy'}

# Collects a ZeroRedundancyOptimizer's state from all processes when the runner saves it.
HOOK = 'ShardedOptimizerHook'

ALTERNATIVES = (
    "train with DistributedDataParallel; to save memory there, add optimizer=dict(type='ZeroRedundancyOptimizer', "
    "optimizer_type='AdamW', ...), optim_wrapper.accumulative_counts, or an EBMAlgorithm's model.micro_batch or "
    'model.low_memory=True (see docs/engines.md). Evaluation and fine-tuning are not restricted'
)
COMPILE_INSTEAD = (
    "mmengine's compile would differentiate a compiled step twice, which torch cannot; use model.compile=True instead "
    '(--cfg-options model.compile=True), which compiles the inner gradient too'
)


def check_config(cfg: Config) -> None:
    """Refuse a training config that restores and whose engine cannot train or save the model.

    Raises:
        ValueError: Names the key, why, and what to use instead.
    """
    if _name(cfg.get('model')) not in PRETRAINING:
        return
    if _compiles(cfg.get('compile')):
        raise ValueError(f'compile: {COMPILE_INSTEAD}')
    for key, what in _sharding(cfg):
        raise ValueError(f'{key}: {_refusal(what)}')
    hooks = {_name(hook) for hook in cfg.get('custom_hooks') or ()}
    if _name((cfg.get('optim_wrapper') or {}).get('optimizer')) == 'ZeroRedundancyOptimizer' and HOOK not in hooks:
        raise ValueError(
            "optim_wrapper.optimizer.type='ZeroRedundancyOptimizer': mmengine's runner would wait for ever when it "
            f"saves the first checkpoint; add dict(type='mmebm.{HOOK}') to custom_hooks"
        )


def check_model(model: nn.Module) -> None:
    """Refuse, on a first training batch, a model that an engine has sharded or mmengine has compiled.

    Raises:
        ValueError: Says why, and what to use instead.
    """
    if 'train_step' in vars(model):  # where mmengine puts the compiled one; of a wrapped model, in the wrapper
        raise ValueError(f'compile: {COMPILE_INSTEAD}')
    for module in model.modules():
        if getattr(module, '_is_fsdp_managed_module', False):  # by FSDP 1 and 2, for the compiler; no public sign
            raise ValueError(_refusal('FSDP'))
    for parameter in model.parameters():
        if hasattr(parameter, 'ds_id'):
            raise ValueError(_refusal('DeepSpeed ZeRO-3'))
        if isinstance(parameter, DTensor):
            raise ValueError(_refusal('Tensor parallelism'))


def _sharding(cfg: Config) -> Iterator[tuple[str, str]]:
    """The keys of a config that shard more than the optimiser's state, each with what does so."""
    strategy, wrapper = cfg.get('strategy'), cfg.get('model_wrapper_cfg')
    for key, value in (('strategy', strategy), ('model_wrapper_cfg', wrapper)):
        if _name(value) in SHARDING:
            yield f'{key}.type={_name(value)!r}', _name(value)
    if _name(strategy) == 'DeepSpeedStrategy':
        stage = _zero_stage(strategy)
        if stage >= 2:
            yield f'strategy.zero_optimization.stage={stage}', f'DeepSpeed ZeRO-{stage}'


def _zero_stage(strategy: dict) -> int:
    """The stage that mmengine's ``DeepSpeedStrategy`` gets, in its arguments or in DeepSpeed's own config."""
    config = strategy.get('config') or {}
    if isinstance(config, str):
        config = mmengine.load(config)
    zero = strategy.get('zero_optimization') or config.get('zero_optimization') or {}
    return zero.get('stage', 0)


def _compiles(compile: bool | dict | None) -> bool:
    """How mmengine reads the key: an empty dict compiles too."""
    return not compile.get('disable', False) if isinstance(compile, dict) else bool(compile)


def _refusal(what: str) -> str:
    return f'{what} cannot pretrain by restoration, which differentiates twice; {ALTERNATIVES}'


def _name(config: Any) -> str:
    """The type in a config, which is a name or a class, without its scope or module."""
    kind = config.get('type') if isinstance(config, dict) else None
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]
