"""Which of mmengine's engines can train a model that differentiates twice; the others are refused before they start.

Evaluation, and the training of other models, are not checked.
"""

from collections.abc import Iterator

import mmengine
from mmengine.config import Config

from mmebm.model_building import model_class, type_name
from mmebm.models.selfsup.checks import COMPILE_INSTEAD, refusal

# Training strategies and model wrappers of mmengine that shard parameters or gradients.
SHARDING = {'FSDPStrategy', 'MMFullyShardedDataParallel', 'ColossalAIStrategy'}

# Collects a ZeroRedundancyOptimizer's state from all processes when the runner saves it.
HOOK = 'ShardedOptimizerHook'


def check_engine_config(cfg: Config) -> None:
    """Refuse a training config whose model differentiates twice and whose engine cannot train or save it.

    Raises:
        ValueError: Names the key, why, and what to use instead.
    """
    if not differentiates_twice(cfg):
        return
    if _compiles(cfg.get('compile')):
        raise ValueError(f'compile: {COMPILE_INSTEAD}')
    for key, what in _sharding(cfg):
        raise ValueError(f'{key}: {refusal(what)}')
    hooks = {type_name(hook) for hook in cfg.get('custom_hooks') or ()}
    if type_name((cfg.get('optim_wrapper') or {}).get('optimizer')) == 'ZeroRedundancyOptimizer' and HOOK not in hooks:
        raise ValueError(
            "optim_wrapper.optimizer.type='ZeroRedundancyOptimizer': mmengine's runner would wait for ever when it "
            f"saves the first checkpoint; add dict(type='mmebm.{HOOK}') to custom_hooks"
        )


def differentiates_twice(cfg: Config) -> bool:
    """Whether a config's model says so by its class attribute; an unknown model does not."""
    return getattr(model_class(cfg), 'differentiates_twice', False)


def _sharding(cfg: Config) -> Iterator[tuple[str, str]]:
    """The keys of a config that shard more than the optimiser's state, each with what does so."""
    strategy, wrapper = cfg.get('strategy'), cfg.get('model_wrapper_cfg')
    for key, value in (('strategy', strategy), ('model_wrapper_cfg', wrapper)):
        if type_name(value) in SHARDING:
            yield f'{key}.type={type_name(value)!r}', type_name(value)
    if type_name(strategy) == 'DeepSpeedStrategy':
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
