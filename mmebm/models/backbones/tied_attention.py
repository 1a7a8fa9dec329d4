"""An initialisation by which attention compares a patch with its neighbours from the first step on."""

import torch
from mmengine.model import XavierInit
from mmengine.model.weight_init import update_init_info
from torch import nn

from mmebm.option_check import check_positive
from mmebm.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class TiedAttention(XavierInit):
    """Initialises each attention layer such that it subtracts from a token what similar tokens have in common.

    Keys begin as the queries, so that tokens attend to those that are like them, which with sin-cos position embeddings
    are their neighbours. The output projection begins as the negative transpose of the values, so that what is added
    to a token is minus their mean. With other weights, a ViT first has to learn where a patch's neighbours are
    (docs/ablations.md). A simpler form, without singular value decompositions, of what trained ViTs look like
    according to Trockman and Kolter (Mimetic Initialization of Self-Attention Layers, arXiv 2305.09828).

    For ``init_cfg`` of a backbone. Attention layers are modules with ``num_heads``, linear ``qkv`` from D to 3 D,
    queries first, and linear ``proj`` from D to D, as those of mmpretrain's and timm's ViTs. All other linear layers
    are Xavier-uniform, as MAE's.

    Args:
        query_key: s > 0; entries of queries and keys have the variance s / D. A token that has passed a layer norm then
            attends to itself with a logit of s times the square root of a head's width, in expectation.
        value_output: Likewise of values and output projection.

    Raises:
        ValueError: A number is not positive, or the module to initialise has no such attention layer.
    """

    def __init__(self, query_key: float = 0.7, value_output: float = 0.7) -> None:
        super().__init__(distribution='uniform', layer='Linear')
        check_positive('TiedAttention', query_key=query_key, value_output=value_output)
        self.query_key = query_key
        self.value_output = value_output

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Initialise all linear layers of a module."""
        super().__call__(module)
        layers = [layer for layer in module.modules() if _is_attention(layer)]
        if not layers:
            raise ValueError(
                f'TiedAttention: {type(module).__name__} has no attention layer with linear qkv (D to 3 D) and proj '
                '(D to D)'
            )
        for layer in layers:
            width = layer.proj.in_features
            queries, keys, values = layer.qkv.weight.view(3, width, width)
            keys.copy_(queries.normal_(std=(self.query_key / width) ** 0.5))
            layer.proj.weight.copy_(-values.normal_(std=(self.value_output / width) ** 0.5).T)
            for linear in (layer.qkv, layer.proj):
                if linear.bias is not None:
                    linear.bias.zero_()
        if hasattr(module, '_params_init_info'):  # mmengine logs by what each parameter was initialised
            update_init_info(module, f'TiedAttention: query_key={self.query_key}, value_output={self.value_output}')


def _is_attention(layer: nn.Module) -> bool:
    qkv, proj = getattr(layer, 'qkv', None), getattr(layer, 'proj', None)
    if not (hasattr(layer, 'num_heads') and isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear)):
        return False
    return proj.in_features == proj.out_features == qkv.in_features and qkv.out_features == 3 * qkv.in_features
