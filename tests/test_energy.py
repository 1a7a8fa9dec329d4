from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmebm.energy import descend, energy_gradient, restoration_step, restore
from mmebm.training_step.parts import SumInParts


def half_square(x):
    return x.flatten(1).square().sum(dim=1) / 2


def test_gradient_of_half_the_square_is_the_image():
    x = torch.randn(3, 2, 4, 4)
    energy, gradient = energy_gradient(half_square, x, create_graph=False)
    torch.testing.assert_close(energy, x.flatten(1).square().sum(1) / 2)
    torch.testing.assert_close(gradient, x)


def test_gradient_does_not_depend_on_the_batch():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 1), nn.Flatten(0)).double()
    x = torch.randn(5, 3, 2, 2, dtype=torch.double)
    _, together = energy_gradient(net, x, create_graph=False)
    alone = [energy_gradient(net, image[None], create_graph=False)[1] for image in x]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-14)


def test_second_derivatives_against_finite_differences():
    weight = torch.randn(6, 12, dtype=torch.double, requires_grad=True)
    x = torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True)

    def gradient(x, weight):
        return energy_gradient(lambda x: F.gelu(x.flatten(1) @ weight.T).sum(1), x, create_graph=True)[1]

    assert torch.autograd.gradcheck(gradient, (x, weight))


def test_third_derivatives_are_right_or_refused():
    weight = torch.randn(6, 12, dtype=torch.double, requires_grad=True)
    x = torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True)

    def gradient(activation, x, weight):
        return energy_gradient(lambda x: activation(x.flatten(1) @ weight.T).sum(1), x, create_graph=True)[1]

    assert torch.autograd.gradgradcheck(partial(gradient, torch.tanh), (x, weight))
    (second,) = torch.autograd.grad(gradient(F.gelu, x, weight).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        second.sum().backward()


def test_restoration_of_half_the_square_is_geometric():
    x = torch.randn(2, 3, 4, 4)
    images, energies = restore(half_square, x, 0.25, 3)
    for k, image in enumerate(images):
        torch.testing.assert_close(image, 0.75**k * x)
    for k, energy in enumerate(energies):
        torch.testing.assert_close(energy, 0.75 ** (2 * k) * half_square(x))
    assert len(images) == 4 and len(energies) == 3


def test_every_step_is_a_one_step_problem():
    # E = w |x|^2 / 2, so x_2 = (1 - a w) x_1, and with x_1 detached d(x_2)/dw = -a x_1 and d(x_2)/da = -w x_1.
    x, w, a = torch.rand(2, 1, 2, 2), torch.tensor(0.5, requires_grad=True), torch.tensor([0.1], requires_grad=True)
    step = partial(restoration_step, lambda x: w * half_square(x), step_size=a, create_graph=True)
    (first, _), (second, _) = descend(step, x, 2)
    second.sum().backward()
    torch.testing.assert_close(w.grad, -0.1 * first.detach().sum())
    torch.testing.assert_close(a.grad, -0.5 * first.detach().sum().reshape(1))


def test_works_inside_no_grad_and_leaves_no_graph():
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        images, energies = restore(half_square, x, 0.5, 1)
    torch.testing.assert_close(images[-1], x / 2)
    assert not images[-1].requires_grad and not energies[0].requires_grad and not x.requires_grad


def test_training_needs_the_graph():
    # Without create_graph the restored image would not depend on the weights, and only the step size would train.
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False), nn.Flatten(0))
    x = torch.randn(2, 3, 2, 2)
    assert not restore(net, x, 1.0, 1).images[-1].requires_grad
    restored, _ = restoration_step(net, x, 1.0, create_graph=True)
    restored.sum().backward()
    torch.testing.assert_close(net[1].weight.grad, torch.full((1, 12), -2.0))  # two images, each -a


class AttentionEnergy(nn.Module):
    """One attention layer over pixels, by the fused operator or by explicit products."""

    def __init__(self, fused):
        super().__init__()
        self.qkv = nn.Linear(3, 24)
        self.fused = fused

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return out.square().sum(dim=(1, 2, 3))


def test_fused_attention_has_the_gradients_of_the_explicit_products():
    fused, explicit = AttentionEnergy(True).double(), AttentionEnergy(False).double()
    explicit.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, 3, 3, dtype=torch.double)
    for net in (fused, explicit):
        restored, _ = restoration_step(net, x, 0.1, create_graph=True)
        restored.square().sum().backward()
    torch.testing.assert_close(fused.qkv.weight.grad, explicit.qkv.weight.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fused.qkv.bias.grad, explicit.qkv.bias.grad, rtol=1e-10, atol=1e-12)


def test_under_autocast_the_image_and_its_gradient_stay_in_float32():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 1), nn.Flatten(0))
    x = torch.randn(4, 3, 2, 2)
    exact = restore(net, x, 1.0, 1).images[-1]
    with torch.autocast('cpu', torch.bfloat16):
        restored, energy = restoration_step(net, x, 1.0, create_graph=True)
    assert energy.dtype == torch.bfloat16  # the forward pass did run in half precision
    assert restored.dtype == torch.float32
    torch.testing.assert_close(restored, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize('energy', [lambda x: x.sum(), lambda x: x.flatten(2), lambda x: x.sum(dim=(1, 2, 3))[:1]])
def test_energy_of_another_shape_is_refused(energy):
    with pytest.raises(ValueError, match=r'a number per image, \(2,\), or its parts'):
        energy_gradient(energy, torch.ones(2, 3, 4, 4), create_graph=False)


def test_parts_of_an_energy_are_summed():
    x = torch.randn(2, 3, 4, 4)
    parts, gradient = energy_gradient(lambda x: x.square().flatten(2).sum(dim=2) / 2, x, create_graph=False)
    torch.testing.assert_close(parts, x.square().sum(dim=(2, 3)) / 2)
    torch.testing.assert_close(gradient, x)


def test_inference_mode_is_refused_with_what_to_do():
    with torch.inference_mode(), pytest.raises(RuntimeError, match='torch.no_grad'):
        energy_gradient(half_square, torch.ones(1, 1, 2, 2), create_graph=False)


def test_images_made_in_inference_mode_are_restored_outside():
    with torch.inference_mode():
        images = torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(restore(half_square, images, 0.5, 1).images[-1], torch.full((1, 1, 2, 2), 0.5))


def test_a_step_size_per_image_and_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r'tensor of one element, not of \(2,\)'):
        restore(half_square, torch.ones(2, 1, 2, 2), torch.ones(2), 1)  # would be broadcast over columns
    with pytest.raises(ValueError, match='floating point, .*not torch.uint8'):
        restore(half_square, torch.ones(2, 1, 2, 2, dtype=torch.uint8), 0.1, 1)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match='num_steps must be at least 1, not 0'):
        restore(half_square, torch.ones(1, 1, 2, 2), 1.0, 0)


def test_parts_whose_gradients_overflow_in_float16_train_once_the_scale_is_low_enough():
    net, x, sum_in_parts = nn.Linear(4, 1, bias=False), torch.full((2, 4), 16.0), SumInParts()
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=1.0), torch.amp.GradScaler('cpu')
    before = net.weight.detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast('cpu', torch.float16):
            loss = sum_in_parts((net(part).float().sum() for part in x.split(1)), [net.weight])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if not net.weight.equal(before):
            break
    # The gradient of a part is 16, and the largest number 65504: it fits from a scale of 2 ** 11 down.
    torch.testing.assert_close(net.weight, before - 32)


def test_the_scale_of_parts_is_taken_out_again_and_leaves_other_precisions_alone():
    x, weight, sum_in_parts = torch.tensor([1.0, 2.0]), torch.ones((), requires_grad=True), SumInParts()
    for dtype, factor in ((torch.bfloat16, 8.0), (torch.float16, 2.0**12), (torch.float16, 3.0), (torch.float32, 5.0)):
        weight.grad = None
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            total = sum_in_parts((weight * value for value in x), [weight])
        (factor * total).backward()
        assert (total.item(), weight.grad.item()) == (3.0, 3 * factor)
