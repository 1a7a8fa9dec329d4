"""Forward-mode differentiation of a network with respect to its input."""

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmebm.ops.attention import explicit_attention
from mmebm.ops.double_backward import gelu_derivative, normalization_derivative


class DualOperators(TorchFunctionMode):
    """Context for a forward pass on dual tensors, whose tangents are derivatives along a direction of the input.

    Replaces what is missing, inefficient or wrong in torch's forward mode:

    - fused attention has no forward mode;
    - in linear maps, torch also multiplies by the weights' tangents, which are zero here;
    - the tangents of normalisations and of the softmax, when differentiated, give wrong gradients. For the former,
      torch treats mean and standard deviation as constants; for the latter, it overwrites a tensor that it needs again,
      which inside a checkpoint raises no error;
    - the tangent of GELU, when differentiated, is composed of operators that each keep an activation.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with self:  # its softmax has to be replaced too
                return explicit_attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:  # torch's own softmax, within it, would not be seen here
            raise RuntimeError("forward mode is not exact for torch's nn.MultiheadAttention")
        replacement = _REPLACEMENTS.get(func)
        return func(*args, **kwargs) if replacement is None else replacement(func, *args, **kwargs)


def _linear_map(func, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args, **kwargs) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, weight, bias, *args, **kwargs)
    if tangent is None:
        return output
    return fwAD.make_dual(output, func(tangent, weight, None, *args, **kwargs))


def _layer_norm(func, input: Tensor, normalized_shape, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, normalized_shape, weight, bias, eps)
    if tangent is None:
        return output
    tangent = _normalization_tangent(primal, tangent, (*primal.shape[: -len(normalized_shape)], -1), eps)
    return fwAD.make_dual(output, (tangent if weight is None else tangent * weight).to(output.dtype))


def _group_norm(func, input: Tensor, num_groups: int, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, num_groups, weight, bias, eps)
    if tangent is None:
        return output
    tangent = _normalization_tangent(primal, tangent, (primal.shape[0], num_groups, -1), eps)
    if weight is not None:
        tangent = tangent * weight.view(-1, *(1,) * (primal.dim() - 2))
    return fwAD.make_dual(output, tangent.to(output.dtype))


def _normalization_tangent(x: Tensor, tangent: Tensor, shape: tuple[int, ...], eps: float) -> Tensor:
    """Tangent of a normalisation over the last dimension of ``shape``, in at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return normalization_derivative(x.reshape(shape).to(dtype), tangent.reshape(shape).to(dtype), eps).view_as(x)


def _gelu(func, input: Tensor, approximate: str = 'none') -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    if tangent is None or approximate != 'none':
        return func(input, approximate=approximate)
    return fwAD.make_dual(func(primal), gelu_derivative(primal, tangent))


def _softmax(func, input: Tensor, dim: int, *args, **kwargs) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, dim, *args, **kwargs)
    if tangent is None:
        return output
    # The Jacobian is symmetric: torch's backward operator, which is differentiable, also gives the tangent.
    tangent = torch.ops.aten._softmax_backward_data(tangent.to(output.dtype), output, dim, output.dtype)
    return fwAD.make_dual(output, tangent)


def _log_softmax(func, input: Tensor, dim: int, *args, **kwargs) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, dim, *args, **kwargs)
    if tangent is None:
        return output
    return fwAD.make_dual(output, tangent - (output.exp() * tangent).sum(dim=dim, keepdim=True))


_REPLACEMENTS = {
    F.linear: _linear_map,
    F.conv2d: _linear_map,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.gelu: _gelu,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.log_softmax: _log_softmax,
    torch.log_softmax: _log_softmax,
    Tensor.log_softmax: _log_softmax,
}
