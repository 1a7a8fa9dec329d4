"""Attention that can be differentiated twice.

The fused kernels behind ``torch.nn.functional.scaled_dot_product_attention`` have no second derivative. Its math
backend has one, but computes bfloat16 and float16 in float32, off the tensor cores. Hence two replacements here, both
in the working precision:

- ``explicit_attention``: plain operators, for every option and every mode of differentiation;
- ``recomputed_attention``: keeps no L x L matrix of L tokens, for long sequences.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

AttentionFn = Callable[..., Tensor]


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention in plain operators; arguments, shapes and result as in torch's ``scaled_dot_product_attention``.

    So the result of a query that is masked out of all keys is 0.
    """
    query, key, value = _in_working_precision(query, key, value)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
    if is_causal:
        causal = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        if attn_mask is None:
            attn_mask = causal
        else:
            lowest = False if attn_mask.dtype == torch.bool else float('-inf')
            attn_mask = attn_mask.masked_fill(~causal, lowest)
    # Autocast would compute the softmax in float32 and keep that for both backward passes.
    with torch.autocast(query.device.type, enabled=False):
        logits = (query * _scale(query, scale)) @ key.transpose(-2, -1)
        if attn_mask is None:
            return F.dropout(logits.softmax(dim=-1), dropout_p) @ value
        if attn_mask.dtype == torch.bool:  # True = attends
            attn_mask = logits.new_zeros(()).masked_fill(~attn_mask, float('-inf'))
        attn_mask = attn_mask.to(logits.dtype)  # in which the lowest float32 becomes -inf
        lonely = (attn_mask == float('-inf')).all(dim=-1, keepdim=True)  # whose softmax would be 0 / 0
        logits = logits + attn_mask.masked_fill(lonely, 0)
        return (F.dropout(logits.softmax(dim=-1), dropout_p) @ value).masked_fill(lonely, 0)


def recomputed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention that saves no L x L matrix for either backward pass; arguments as in ``explicit_attention``.

    The forward and the first backward pass are torch's fused kernels; the second backward pass recomputes the attention
    weights, 128 rows at a time. With a mask, causal or not, dropout, grouped queries, or tensors of other shapes than
    (N, heads, L, D) of one N, one number of heads and one D, it is ``explicit_attention``.

    Raises:
        RuntimeError: Called while compiling: the compiler would treat the fused kernel's result as constant, which
            gives wrong gradients without an error.
    """
    if torch.compiler.is_compiling():
        raise RuntimeError("recomputed attention cannot be compiled; use attention='explicit' with compile=True")
    shapes = {(*tensor.shape[:-2], tensor.shape[-1]) for tensor in (query, key, value)}
    is_plain = query.dim() == 4 and len(shapes) == 1
    if attn_mask is not None or dropout_p > 0 or is_causal or enable_gqa or not is_plain:
        return explicit_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return _Attention.apply(*_in_working_precision(query, key, value), _scale(query, scale))


def _scale(query: Tensor, scale: float | None) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def _in_working_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast the operands as autocast does for fused attention."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, scale):
        out, *state = _fused_forward(query, key, value, scale)
        ctx.save_for_backward(query, key, value, out, *state)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad_out):
        return *_AttentionBackward.apply(grad_out, *ctx.saved_tensors, ctx.scale), None


class _AttentionBackward(torch.autograd.Function):
    """The first backward pass, as a function of (grad_out, query, key, value)."""

    @staticmethod
    def forward(ctx, grad_out, query, key, value, out, *state_and_scale):
        *state, scale = state_and_scale
        ctx.save_for_backward(grad_out, query, key, value)
        ctx.scale = scale
        ctx.num_constants = 1 + len(state_and_scale)
        return _fused_backward(grad_out, query, key, value, out, state, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        return *_double_backward(*ctx.saved_tensors, *grads, ctx.scale), *(None,) * ctx.num_constants


def _fused_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Output, and the state that the fused backward pass needs."""
    if query.is_cuda:
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True, scale=scale)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)


def _fused_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, state: list[Tensor], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if query.is_cuda:
        wanted = [True, True, True, False]  # query, key, value; there is no bias
        return torch.ops.aten._scaled_dot_product_efficient_attention_backward(
            grad_out, query, key, value, None, out, *state, 0.0, wanted, scale=scale
        )[:3]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, query, key, value, out, *state, 0.0, False, scale=scale
    )


def _double_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_dq: Tensor,
    grad_dk: Tensor,
    grad_dv: Tensor,
    scale: float,
    rows_at_a_time: int = 128,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <grad_dq, dq> + <grad_dk, dk> + <grad_dv, dv> with respect to grad_out, query, key and value.

    With P the attention weights and V', K' transposed:

        dP = grad_out V',  dS = scale * P (dP - rowsum(P dP)),  dq = dS K,  dk = dS' Q,  dv = P' grad_out.

    So the sum is <dS, T> + <P, grad_out grad_dv'> with T = grad_dq K' + Q grad_dk'; the code computes its derivative.
    """
    g_out, g_query = torch.empty_like(grad_out), torch.empty_like(query)
    g_key, g_value = torch.zeros_like(key), torch.zeros_like(value)
    for start in range(0, query.shape[-2], rows_at_a_time):
        rows = (..., slice(start, start + rows_at_a_time), slice(None))
        do, q, dq = grad_out[rows], query[rows], grad_dq[rows]
        p = (q @ key.mT * scale).softmax(dim=-1)
        d_p = do @ value.mT
        centered = d_p - (p * d_p).sum(dim=-1, keepdim=True)
        t = (dq @ key.mT + q @ grad_dk.mT) * scale
        t_centered = t - (p * t).sum(dim=-1, keepdim=True)
        d_s = p * centered * scale
        g_dp = p * t_centered
        # Up to a constant per row, which the backward pass of the softmax removes.
        g_p = do @ grad_dv.mT + centered * t_centered
        g_logits = p * (g_p - (p * g_p).sum(dim=-1, keepdim=True)) * scale
        g_query[rows] = g_logits @ key + d_s @ grad_dk
        g_out[rows] = g_dp @ value + p @ grad_dv
        g_key += g_logits.mT @ q + d_s.mT @ dq
        g_value += g_dp.mT @ do
    return g_out, g_query, g_key, g_value
