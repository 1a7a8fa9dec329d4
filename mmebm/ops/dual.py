"""Forward-mode differentiation of a network with respect to its input."""

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .attention import explicit_attention


class DualOperators(TorchFunctionMode):
    """Context for a forward pass on dual tensors, whose tangents are derivatives along a direction of the input.

    Replaces what torch's forward mode lacks, wastes or gets wrong:

    - fused attention has no forward mode;
    - in linear maps, torch also multiplies by the weights' tangents, which are zero here;
    - the tangents of normalisations and of the softmax, differentiated in turn, give wrong gradients. For the former,
      torch takes mean and deviation for constants; for the latter, it overwrites a tensor that it needs again, and
      inside a checkpoint nobody notices.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with self:  # its softmax has to be replaced too
                return explicit_attention(*args, **kwargs)
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
    dims = tuple(range(-len(normalized_shape), 0))
    tangent = _normalisation_tangent(primal, tangent, dims, eps)
    return fwAD.make_dual(output, (tangent if weight is None else tangent * weight).to(output.dtype))


def _group_norm(func, input: Tensor, num_groups: int, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, num_groups, weight, bias, eps)
    if tangent is None:
        return output
    groups = (primal.shape[0], num_groups, -1)
    tangent = _normalisation_tangent(primal.reshape(groups), tangent.reshape(groups), (-1,), eps).view_as(primal)
    if weight is not None:
        tangent = tangent * weight.view(-1, *(1,) * (primal.dim() - 2))
    return fwAD.make_dual(output, tangent.to(output.dtype))


def _softmax(func, input: Tensor, dim: int, *args, **kwargs) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, dim, *args, **kwargs)
    if tangent is None:
        return output
    return fwAD.make_dual(output, output * (tangent - (output * tangent).sum(dim=dim, keepdim=True)))


def _log_softmax(func, input: Tensor, dim: int, *args, **kwargs) -> Tensor:
    primal, tangent = fwAD.unpack_dual(input)
    output = func(primal, dim, *args, **kwargs)
    if tangent is None:
        return output
    return fwAD.make_dual(output, tangent - (output.exp() * tangent).sum(dim=dim, keepdim=True))


def _normalisation_tangent(x: Tensor, tangent: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Directional derivative of (x - mean) / sqrt(variance + eps) over the given dimensions, at least in float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, tangent = x.to(dtype), tangent.to(dtype)
    variance, mean = torch.var_mean(x, dim=dims, correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    normalised = (x - mean) * scale
    along = (normalised * tangent).mean(dim=dims, keepdim=True)
    return scale * (tangent - tangent.mean(dim=dims, keepdim=True) - normalised * along)


_REPLACEMENTS = {
    F.linear: _linear_map,
    F.conv2d: _linear_map,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.log_softmax: _log_softmax,
    torch.log_softmax: _log_softmax,
    Tensor.log_softmax: _log_softmax,
}
