"""Replacements for torch's operators in a network that is differentiated twice.

torch composes their second derivatives of many small operators. Each of those reads and writes whole activations, which
takes much of the time of an eager step. The compiler fuses them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from mmebm.ops.attention import AttentionFn, explicit_attention


class SecondOrderOperators(TorchFunctionMode):
    """Context for the forward pass of a network whose gradient is differentiated again.

    Modules, weights and names are unchanged; only the operators that modules call are replaced.

    Args:
        attention: Replaces ``scaled_dot_product_attention``: ``explicit_attention`` or ``recomputed_attention``.
    """

    def __init__(self, attention: AttentionFn = explicit_attention) -> None:
        super().__init__()
        self.replacements = {
            F.scaled_dot_product_attention: attention,
            F.multi_head_attention_forward: multi_head_attention_forward,
        }
        if not torch.compiler.is_compiling():
            self.replacements |= {F.layer_norm: layer_norm, F.gelu: gelu}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.replacements.get(func, func)(*args, **(kwargs or {}))


def multi_head_attention_forward(*args, need_weights: bool = True, **kwargs) -> tuple[Tensor, Tensor | None]:
    """As torch's function behind ``nn.MultiheadAttention``, but never with fused attention."""
    output, weights = F.multi_head_attention_forward(*args, need_weights=True, **kwargs)  # type: ignore[misc]
    return output, weights if need_weights else None


def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """As torch's ``layer_norm``; with its own second derivative in full precision and over the last dimension."""
    # On a GPU, the statistics of half precision are float32.
    is_plain = len(normalized_shape) == 1 and input.dtype in (torch.float32, torch.float64)
    is_plain &= weight is not None and bias is not None and input.dtype == weight.dtype
    if not is_plain or torch.is_autocast_enabled(input.device.type):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    return _LayerNorm.apply(input, weight, bias, eps)


def gelu(input: Tensor, approximate: str = 'none') -> Tensor:
    """As torch's ``gelu``, with its own second derivative for the exact form."""
    return F.gelu(input, approximate=approximate) if approximate != 'none' else _GELU.apply(input)


def normalization_derivative(x: Tensor, direction: Tensor, eps: float) -> Tensor:
    """Directional derivative of (x - mean) / sqrt(variance + eps) over the last dimension, differentiable once.

    Args:
        x: (..., D).
        direction: (..., D), as the result.
        eps: As in ``layer_norm``.
    """
    _, mean, rstd = torch.native_layer_norm(x.detach(), x.shape[-1:], None, None, eps)
    return _LayerNormBackward.apply(direction, x, None, None, mean, rstd)[0]  # the Jacobian is symmetric


def gelu_derivative(x: Tensor, direction: Tensor) -> Tensor:
    """Directional derivative of the exact ``gelu``, elementwise, of the shape of x, differentiable once."""
    return _GELUBackward.apply(direction, x)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        out, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return out

    @staticmethod
    def backward(ctx, grad_out):
        return *_LayerNormBackward.apply(grad_out, *ctx.saved_tensors), None


class _LayerNormBackward(torch.autograd.Function):
    """The first backward pass, as a function of (grad_out, x, weight).

    With n the normalised x, r the reciprocal standard deviation, g = weight * grad_out and means over the last axis,

        grad_x = P g,  P u = r (u - mean(u) - n mean(n u)),  grad_weight = sum(grad_out n),  grad_bias = sum(grad_out).

    Without a weight, g = grad_out.
    """

    @staticmethod
    def forward(ctx, grad_out, x, weight, bias, mean, rstd):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad_out, x, weight, bias, mean, rstd)
        return _layer_norm_backward(grad_out, x, mean, rstd, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, v, v_weight, v_bias):
        if v_weight is not None or v_bias is not None:
            raise NotImplementedError(
                'layer_norm: only the gradient of x can be differentiated, not those of the weights'
            )
        if v is None:
            return (None,) * 6
        # Derivatives of <v, P g>; P is symmetric.
        grad_out, x, weight, bias, mean, rstd = ctx.saved_tensors
        n = (x - mean).mul_(rstd)
        p_v = _layer_norm_backward(v, x, mean, rstd)[0]
        grad_x = _layer_norm_backward(grad_out, x, mean, rstd, weight, bias)[0]
        g = grad_out if weight is None else grad_out * weight
        along_x, along_v, along_g = (_mean_product(*pair) for pair in ((v, grad_x), (n, v), (n, g)))
        g_x = n.mul_(along_x).addcmul_(grad_x, along_v).addcmul_(p_v, along_g).mul_(-rstd)
        if weight is None:
            return p_v, g_x, None, None, None, None
        g_weight = (grad_out * p_v).flatten(0, -2).sum(dim=0)
        return p_v.mul_(weight), g_x, g_weight, None, None, None


def _layer_norm_backward(
    grad_out: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    wanted = [True, weight is not None, bias is not None]
    return torch.ops.aten.native_layer_norm_backward(grad_out, x, x.shape[-1:], mean, rstd, weight, bias, wanted)


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b).div_(a.shape[-1]).unsqueeze(-1)


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx, grad_out):
        return _GELUBackward.apply(grad_out, *ctx.saved_tensors)


class _GELUBackward(torch.autograd.Function):
    """The first backward pass, as a function of (grad_out, x)."""

    @staticmethod
    def forward(ctx, grad_out, x):
        ctx.save_for_backward(grad_out, x)
        return torch.ops.aten.gelu_backward(grad_out, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, v):
        grad_out, x = ctx.saved_tensors
        # The second derivative of x * Phi(x) is phi(x) (2 - x^2), with phi the density of the normal distribution.
        # Beyond |x| = 16 it is zero. The square of a larger x may be infinite in float16, and infinity times zero NaN.
        square = (x * x).clamp_(max=256)
        g_x = (square * -0.5).exp_().mul_(square.neg_().add_(2)).mul_(grad_out).mul_(v).mul_(1 / math.sqrt(2 * math.pi))
        return torch.ops.aten.gelu_backward(v, x), g_x
