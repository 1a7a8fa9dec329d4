"""Gradient clipping of two networks that train at once, each by its own norm."""

from collections.abc import Callable
from functools import partial

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import Tensor, nn

from mmebm.model_building import unwrapped
from mmebm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ClipGeneratorApart(DefaultOptimWrapperConstructor):
    """mmengine's constructor, whose ``clip_grad`` is applied to ``model.generator`` and to all else separately.

    In ``CIM`` no gradient crosses between generator and enhancer, so that under AdamW one optimiser trains them as two
    would; only a common norm of gradients would couple them. ``paramwise_cfg.custom_keys`` has their learning rates:
    ``{'generator': dict(lr_mult=0.5)}``. The logged ``grad_norm`` is that of all.

    Raises:
        TypeError: The model has no generator.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The model's optimiser."""
        wrapper = super().__call__(model)
        generator = getattr(unwrapped(model), 'generator', None)
        if not isinstance(generator, nn.Module):
            raise TypeError(
                f'ClipGeneratorApart: {type(unwrapped(model)).__name__} has no generator; leave out '
                'optim_wrapper.constructor'
            )
        if wrapper.clip_grad_kwargs:
            wrapper.clip_func = partial(_clip_apart, wrapper.clip_func, set(generator.parameters()))
        return wrapper


def _clip_apart(clip: Callable, apart: set[Tensor], parameters: list[Tensor], **kwargs) -> Tensor | None:
    """Clip the gradients of some parameters and those of the others; the norm of all, if there is one."""
    parts = [p for p in parameters if p in apart], [p for p in parameters if p not in apart]
    norms = [clip(part, **kwargs) for part in parts if part]
    return None if None in norms else torch.stack(norms).norm()
