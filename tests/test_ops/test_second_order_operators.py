"""Operators of our own against torch's, to second order."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmebm.ops.attention import explicit_attention, recomputed_attention
from mmebm.ops.checkpointing import residual_blocks
from mmebm.ops.double_backward import (
    SecondOrderOperators,
    gelu,
    gelu_derivative,
    layer_norm,
    normalization_derivative,
)
from mmebm.ops.forward_mode import DualOperators


def randn(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize('dims', [(3, 6), (2, 3, 6)])
def test_layer_norm(dims):
    x, weight, bias = randn(*dims), randn(6), randn(6)
    torch.testing.assert_close(layer_norm(x, [6], weight, bias), F.layer_norm(x, [6], weight, bias))
    assert gradcheck(lambda *inputs: layer_norm(inputs[0], [6], *inputs[1:]), (x, weight, bias))
    assert gradgradcheck(lambda x: layer_norm(x, [6], weight, bias), (x,))

    def gradient_of_x(x, weight, bias):
        return torch.autograd.grad(layer_norm(x, [6], weight, bias).pow(3).sum(), x, create_graph=True)

    assert gradcheck(gradient_of_x, (x, weight, bias))


def test_layer_norm_refuses_what_it_cannot_do():
    x, weight, bias = randn(3, 6), randn(6), randn(6)
    (gradient,) = torch.autograd.grad(layer_norm(x, [6], weight, bias).pow(3).sum(), weight, create_graph=True)
    with pytest.raises(NotImplementedError, match='only the gradient of x'):
        gradient.sum().backward()


def test_gelu():
    x = randn(4, 5)
    torch.testing.assert_close(gelu(x), F.gelu(x))
    assert gradcheck(gelu, (x,))
    assert gradgradcheck(gelu, (x,))
    torch.testing.assert_close(gelu(x, approximate='tanh'), F.gelu(x, approximate='tanh'))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_gelu_of_what_has_no_square_in_float16(dtype):
    x = torch.tensor([-300.0, -20.0, 2.0, 20.0, 300.0], dtype=dtype, requires_grad=True)
    (first,) = torch.autograd.grad(gelu(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    expected = torch.tensor([0.0, 0.0, density * (2 - 4), 0.0, 0.0], dtype=dtype)
    torch.testing.assert_close(second, expected, rtol=0.02, atol=0)


def test_derivatives_along_a_direction():
    x, direction = randn(2, 3, 6), randn(2, 3, 6)
    for derivative, function in (
        (lambda x, v: normalization_derivative(x, v, 1e-5), lambda x: F.layer_norm(x, [6])),
        (gelu_derivative, F.gelu),
    ):
        along = (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close(derivative(x, direction), along, rtol=1e-7, atol=1e-8)
        assert gradcheck(derivative, (x, direction))


@pytest.mark.parametrize('attention', [explicit_attention, recomputed_attention])
@pytest.mark.parametrize('length', [5, 300])  # 300: the second backward pass takes its rows in several parts
def test_attention(attention, length):
    query, key, value = (randn(1, 2, length, 4) for _ in range(3))
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(query, key, value)
    found = attention(query, key, value)
    torch.testing.assert_close(found, expected)
    second = []
    for out in (found, expected):
        generator = torch.Generator().manual_seed(0)
        grad_out, *directions = torch.randn(4, *out.shape, generator=generator, dtype=out.dtype)
        first = torch.autograd.grad(out, (query, key, value), grad_out, create_graph=True)
        second.append(torch.autograd.grad(first, (query, key, value), directions))
    torch.testing.assert_close(*second)


@pytest.mark.parametrize('attention', [explicit_attention, recomputed_attention])
@pytest.mark.parametrize(
    'options',
    ['bool mask', 'float mask', 'causal', 'scale', 'grouped', 'cross', 'broadcast', '3-d', '5-d', 'wide value'],
)
def test_attention_options(attention, options):
    query, key, value = randn(2, 4, 5, 8), randn(2, 4, 5, 8), randn(2, 4, 5, 8)
    if options == 'grouped':
        key, value = randn(2, 2, 5, 8), randn(2, 2, 5, 8)
    if options == 'cross':
        key, value = randn(2, 4, 7, 8), randn(2, 4, 7, 8)
    if options == 'broadcast':
        key, value = randn(1, 4, 5, 8), randn(1, 4, 5, 8)
    if options in ('3-d', '5-d'):
        shape = (2, 5, 8) if options == '3-d' else (2, 3, 4, 5, 8)
        query, key, value = randn(*shape), randn(*shape), randn(*shape)
    if options == 'wide value':
        value = randn(2, 4, 5, 12)
    kwargs = {
        'bool mask': dict(attn_mask=torch.ones(5, 5).tril().bool()),
        'float mask': dict(attn_mask=torch.randn(5, 5, dtype=torch.float64)),
        'causal': dict(is_causal=True),
        'scale': dict(scale=0.3),
        'grouped': dict(enable_gqa=True),
    }.get(options, {})
    expected = F.scaled_dot_product_attention(query, key, value, **kwargs)
    torch.testing.assert_close(attention(query, key, value, **kwargs), expected)


@pytest.mark.parametrize('attention', [explicit_attention, recomputed_attention])
@pytest.mark.parametrize('kind', [torch.bool, torch.float64], ids=str)
def test_a_query_that_is_masked_out_of_all_keys_reads_zeros(attention, kind):
    query, key, value = (randn(2, 2, 4, 8) for _ in range(3))
    attends = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4, [False, True, True, True]])
    mask = attends if kind == torch.bool else torch.randn(4, 4, dtype=kind).masked_fill(~attends, float('-inf'))
    found = attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
    assert found[:, :, 1].abs().max() == 0
    assert gradgradcheck(lambda *tensors: attention(*tensors, attn_mask=mask), (query, key, value))


@pytest.mark.parametrize('attention', [explicit_attention, recomputed_attention])
def test_the_lowest_float32_masks_out_in_the_precision_of_autocast(attention):
    query, key, value = (randn(1, 2, 4, 8, dtype=torch.float32) for _ in range(3))
    mask = torch.zeros(4, 4)
    mask[1] = torch.finfo(torch.float32).min  # which bfloat16 rounds to -inf
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = attention(query, key, value, attn_mask=mask)
    assert found.isfinite().all() and found[:, :, 1].abs().max() == 0


def test_attention_drops_weights_as_torch_does():
    query, key = randn(1, 1, 3, 4), randn(1, 1, 3, 4)
    value = torch.ones(1, 1, 3, 4, dtype=torch.float64)
    torch.manual_seed(0)
    # The weights of a row sum to 1; kept ones are divided by 1 - p.
    rows = torch.cat([explicit_attention(query, key, value, dropout_p=0.5)[..., 0].flatten() for _ in range(500)])
    assert rows.mean().item() == pytest.approx(1, abs=0.1)
    # A weight w becomes 2 w or 0, each in half of the cases: the variance of a row is the sum of its squared weights.
    weights = (query @ key.mT / 2).softmax(dim=-1)
    assert rows.var().item() == pytest.approx(weights.square().sum(dim=-1).mean().item(), rel=0.2)
    assert explicit_attention(query, key, value, dropout_p=1.0).abs().max() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_attention_works_in_the_precision_of_autocast(dtype):
    """torch's math backend would save float32 matrices."""
    query, key, value = (randn(1, 2, 5, 4, dtype=torch.float32) for _ in range(3))
    saved = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.dtype) or t, lambda t: t),
        torch.autocast('cpu', dtype=dtype),
        SecondOrderOperators(explicit_attention),
    ):
        assert F.scaled_dot_product_attention(query, key, value).dtype == dtype
    assert set(saved) == {dtype}


def test_recomputed_attention_saves_no_square_matrix():
    length = 64
    query, key, value = (randn(1, 1, length, 4) for _ in range(3))
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        out = recomputed_attention(query, key, value)
        torch.autograd.grad(out.sum(), (query, key, value), create_graph=True)
    assert max(sizes) < length**2


def test_recomputed_attention_refuses_to_be_compiled():
    query, key, value = (randn(1, 2, 5, 4) for _ in range(3))
    with pytest.raises(Exception, match='recomputed attention cannot be compiled'):
        torch.compile(recomputed_attention, backend='eager', fullgraph=True)(query, key, value)
    torch._dynamo.reset()


@pytest.mark.parametrize('module', [torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer])
def test_torch_s_attention_modules_have_second_derivatives(module):
    """They call fused attention within a function of torch's, where an operator is not replaced."""
    layer = module(8, 2, dropout=0.0, batch_first=True).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)

    def apply(x):
        if module is torch.nn.MultiheadAttention:
            output, weights = layer(x, x, x, need_weights=False)
            assert weights is None
            return output
        return layer(x)

    expected = apply(x)
    with SecondOrderOperators(explicit_attention):
        torch.testing.assert_close(apply(x), expected)
        assert gradgradcheck(apply, (x,))


def test_operators_are_torch_s_own_again_afterwards():
    query, key, value = (randn(1, 2, 5, 4) for _ in range(3))
    with SecondOrderOperators(lambda *args, **kwargs: None):
        assert F.scaled_dot_product_attention(query, key, value) is None
    assert F.scaled_dot_product_attention(query, key, value).shape == value.shape


@pytest.mark.parametrize('kind', [torch.bool, torch.float32])
def test_explicit_attention_takes_a_mask_and_the_causal_one(kind):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    allowed = torch.rand(5, 5) > 0.3
    allowed.fill_diagonal_(True)
    mask = allowed if kind == torch.bool else torch.randn(5, 5).masked_fill(~allowed, float('-inf'))
    both = torch.zeros(5, 5) if kind == torch.bool else mask
    both = both.masked_fill(~(allowed & torch.ones(5, 5, dtype=torch.bool).tril()), float('-inf'))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, both)
    torch.testing.assert_close(explicit_attention(query, key, value, mask, is_causal=True), expected)


def test_the_forward_mode_refuses_attention_that_it_cannot_see_into():
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 3, 8)
    with DualOperators(), pytest.raises(RuntimeError, match='forward mode is not exact for .*MultiheadAttention'):
        attention(x, x, x)


def test_shared_blocks_are_listed_once():
    block = torch.nn.TransformerEncoderLayer(4, 1, 4)
    assert residual_blocks(torch.nn.ModuleList([block, block])) == [block]
