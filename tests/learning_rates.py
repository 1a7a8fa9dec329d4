"""What an optimiser's constructor gives to each parameter."""

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn


def shares_of_base(model: nn.Module, cfg: Config) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay, each as a share of the base, of every parameter by name."""
    options = {key: cfg.optim_wrapper[key] for key in ('optimizer', 'constructor', 'paramwise_cfg')}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, dict(type='OptimWrapper', **options)).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    base = cfg.optim_wrapper.optimizer
    shares = {
        names[id(p)]: (group['lr'] / base.lr, group['weight_decay'] / base.weight_decay)
        for group in optimizer.param_groups
        for p in group['params']
    }
    assert shares.keys() == set(names.values())
    return shares
