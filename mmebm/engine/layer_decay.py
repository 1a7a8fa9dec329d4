"""Learning rates that decay with depth, for a backbone of mmpretrain inside a model of mmseg or mmdet."""

from collections.abc import Callable
from functools import partial

from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
from torch import nn

from mmebm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecay(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer decay, which asks the model for a parameter's depth, asking ``model.backbone`` instead.

    The constructors of mmseg and mmdet know a few backbones by their class's name, and mmpretrain's ViT is not among
    them. Parameters outside the backbone keep the full learning rate. A parameter at depth ``d`` of ``D`` gets
    ``lr * layer_decay_rate ** (D - 1 - d)``: in a ViT of ``L`` layers the stem has depth 0, layer ``i`` depth
    ``i + 1``, the last norm ``L + 1 = D - 1``.

    Raises:
        TypeError: The model's backbone does not tell the depth of its parameters.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable | None = None,
        **kwargs,
    ) -> None:
        """Add one group a parameter; called for the model first, and then for each of its modules."""
        if get_layer_depth is None:
            if not hasattr(module.backbone, 'get_layer_depth'):
                raise TypeError(
                    f'BackboneLayerDecay: {type(module.backbone).__name__} has no get_layer_depth; take a backbone of '
                    'mmpretrain that has one, or leave out `constructor`'
                )
            get_layer_depth = partial(module.backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
