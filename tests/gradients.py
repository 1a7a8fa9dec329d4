"""Gradients of models, compared parameter by parameter, and attention that nothing of ours computes."""

import torch


def attention_by_definition(query, key, value, *args, **kwargs):
    weights = torch.softmax(torch.einsum('bhqc,bhkc->bhqk', query, key) / query.shape[-1] ** 0.5, dim=-1)
    return torch.einsum('bhqk,bhkc->bhqc', weights, value)


def use_reference_attention(model):
    for module in model.modules():
        if hasattr(module, 'scaled_dot_product_attention'):  # mmpretrain's
            module.scaled_dot_product_attention = attention_by_definition
        if hasattr(module, 'fused_attn'):  # timm's switch to its own operators
            module.fused_attn = False


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def relative_error(found, expected):
    """Over all parameters together, and the largest of one parameter relative to the largest gradient of all."""
    assert {name for name in expected if expected[name] is None} == {name for name in found if found[name] is None}
    found = {name: grad.double() for name, grad in found.items() if grad is not None}
    squared = {name: (grad - expected[name]).square().sum() for name, grad in found.items()}
    whole = torch.stack([expected[name].square().sum() for name in found]).sum()
    return (torch.stack(list(squared.values())).sum() / whole).sqrt().item()


def assert_same_gradients(found, expected, tolerance):
    assert {name for name in found if found[name] is None} == {name for name in expected if expected[name] is None}
    assert relative_error(found, expected) < tolerance
    # And each parameter on its own, so that no small one hides behind the large ones.
    for name, grad in expected.items():
        if grad is None:
            continue
        error = (found[name].double() - grad).norm() / grad.norm()
        assert error < 20 * tolerance, f'{name}: relative error {error:.2e}'
