"""Layer-wise learning rate decay for a backbone of mmpretrain inside a model of mmseg or mmdet."""

from collections.abc import Callable
from functools import partial

from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
from torch import nn

from mmebm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecay(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer decay with the parameter depths of ``model.backbone`` instead of those of the model.

    The constructors of mmseg and mmdet support a few backbones by class name; mmpretrain's ViT is not among them.
    Parameters outside the backbone keep the full learning rate. A parameter at depth ``d`` of ``n`` gets
    ``lr * layer_decay_rate ** (n - 1 - d)``: in a ViT of ``m`` layers the stem is at depth 0, layer ``i`` at depth
    ``i + 1``, the last norm at ``m + 1 = n - 1``.

    Raises:
        TypeError: The model's backbone does not report the depth of its parameters.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable | None = None,
        **kwargs,
    ) -> None:
        """Add one group per parameter; called first for the model, then for each of its modules."""
        if get_layer_depth is None:
            if not hasattr(module.backbone, 'get_layer_depth'):
                raise TypeError(
                    f'BackboneLayerDecay: {type(module.backbone).__name__} has no get_layer_depth; take a backbone of '
                    'mmpretrain that has one, or leave out `constructor`'
                )
            get_layer_depth = partial(module.backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
