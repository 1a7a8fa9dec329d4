"""An initialisation by which attention compares a patch with its neighbours from the first step on."""

import torch
from mmengine.model import XavierInit
from mmengine.model.weight_init import update_init_info
from mmpretrain.models.utils import BEiTAttention, MultiheadAttention, WindowMSA
from torch import nn

from mmebm.option_check import check_positive
from mmebm.registry import WEIGHT_INITIALIZERS

# Their qkv is linear, from D to 3 D: queries, keys, values. Other packages' may interleave these by head.
ATTENTION = (MultiheadAttention, BEiTAttention, WindowMSA)


@WEIGHT_INITIALIZERS.register_module()
class TiedAttention(XavierInit):
    """Initialises each attention layer such that it subtracts from a token what similar tokens have in common.

    Keys begin as the queries, so that tokens attend to those that are like them, which with sin-cos position embeddings
    are their neighbours. The output projection begins as the negative transpose of the values, so that what is added
    to a token is, in expectation, ``-value_output`` times their mean. With other weights, a ViT first has to learn
    where a patch's neighbours are (docs/ablations.md). A simpler form, without singular value decompositions, of what
    trained ViTs look like according to Trockman and Kolter (Mimetic Initialization of Self-Attention Layers, arXiv
    2305.09828).

    For ``init_cfg`` of a backbone with mmpretrain's attention layers, such as its ViTs, BEiTs and Swins. All other
    linear layers are Xavier-uniform, as MAE's.

    Args:
        query_key: s > 0; the weights of queries and keys have the variance s / D, D being the network's width. A token
            that has passed a layer norm then attends to itself with a logit of s times the square root of a head's
            width, in expectation.
        value_output: Likewise of the weights of values and output projection.

    Raises:
        ValueError: A number is not positive, or the module to initialise has no such attention layer, whose weights
            are queries, keys and values in this order; those of timm and HuggingFace are not supported.
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
        layers = [layer for layer in module.modules() if isinstance(layer, ATTENTION)]
        if not layers:
            names = ', '.join(kind.__name__ for kind in ATTENTION)
            raise ValueError(
                f"TiedAttention: {type(module).__name__} has none of mmpretrain's attention layers ({names})"
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
