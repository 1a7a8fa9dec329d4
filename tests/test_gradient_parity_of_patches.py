"""The gate of every way to compute a step of ``PatchEBM``: a reference in float64, and that by finite differences."""

import pytest
import torch
from gradients import assert_same_gradients, gradients, relative_error, use_reference_attention
from mmpretrain.registry import MODELS
from tiny import grouped

SIZE, PATCH = 16, 4  # 16 patches
SEED = 3


def build(**options):
    """The same weights at every call, all moved off the values that hide mistakes: 0 and 1."""
    torch.manual_seed(0)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    config = dict(
        type='mmebm.PatchEBM',
        backbone=dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=SIZE, patch_size=PATCH, out_type='raw'),
        head=dict(
            type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), patch_size=PATCH, embed_dims=16, num_heads=2
        ),
    )
    model = MODELS.build(config | grouped(options))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def images():
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def reference_loss(model, batch):
    """One step down the gradient and its losses, in nothing but torch and the head's energy and loss."""
    torch.manual_seed(SEED)
    batch = batch.repeat(model.views, 1, 1, 1)
    split, codec = model.draw(len(batch) // model.views, model.views), model.head.codec
    contents = codec.contents(batch)
    missing = codec.start(split).requires_grad_()
    features = model.backbone(batch, split.visible, split.position_dropped)
    energy = model.head(features, missing, contents, split)
    (gradient,) = torch.autograd.grad(energy.sum(), missing, create_graph=True)
    return total(model.head.loss(-gradient, contents, split))


def reference_model(**options):
    model = build(**options).double()
    use_reference_attention(model)
    return model


def reference_gradients(**options):
    model = reference_model(**options)
    reference_loss(model, images().double()).backward()
    return gradients(model)


def gradients_of_step(model, dtype=torch.float32):
    torch.manual_seed(SEED)
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        loss = total(model([images()], mode='loss'))
    loss.backward()
    return gradients(model)


@pytest.fixture(autouse=True)
def forget_compiled_functions():
    """The compiler allows one function a few models only."""
    yield
    torch._dynamo.reset()


def test_reference_agrees_with_finite_differences():
    model, batch = reference_model(), images().double()
    reference_loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        slope, step, values = (parameter.grad * direction).sum().item(), 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
            values.append(reference_loss(model, batch).item())
            with torch.no_grad():
                parameter.sub_(direction, alpha=sign * step)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


WAYS = [
    dict(),
    pytest.param(dict(compile=True), marks=pytest.mark.slow),
    dict(attention='recomputed'),
    dict(low_memory=True),
    dict(micro_batch=1),
    dict(micro_batch=3),
    dict(micro_batch=2, low_memory=True),
    pytest.param(dict(micro_batch=2, compile=True), marks=pytest.mark.slow),
]


@pytest.mark.parametrize('options', WAYS, ids=str)
def test_gradients_in_float32(options, without_code_generation):
    model = build(**options)
    found = gradients_of_step(model)
    assert not options.get('compile') or model.training_step.step.is_compiled
    assert_same_gradients(found, reference_gradients(), 1e-5)


@pytest.mark.parametrize('options', WAYS[:4] + WAYS[5:6], ids=str)
def test_gradients_of_several_views(options, without_code_generation):
    assert_same_gradients(gradients_of_step(build(views=2, **options)), reference_gradients(views=2), 1e-5)


@pytest.mark.parametrize('options', WAYS[:6], ids=str)
def test_gradients_in_half_precision(options, without_code_generation):
    assert relative_error(gradients_of_step(build(**options), torch.bfloat16), reference_gradients()) < 2e-2


@pytest.mark.parametrize('options', [dict(micro_batch=1), dict(micro_batch=3), dict(low_memory=True)], ids=str)
def test_parts_report_what_the_whole_reports(options):
    found = []
    for chosen in (dict(), options):
        torch.manual_seed(SEED)
        found.append(build(**chosen)([images()], mode='loss'))
    torch.testing.assert_close(found[1], found[0])


def test_the_check_of_low_memory_draws_no_random_numbers():
    """A resumed run checks again, and must drop the paths that an uninterrupted one drops."""
    model = build(low_memory=True)
    for block in model.backbone.layers:
        block.attn.out_drop.drop_prob = block.ffn.dropout_layer.drop_prob = 0.5
    found = []
    for is_first_batch in (True, False):
        model._is_first_batch = is_first_batch
        torch.manual_seed(SEED)
        found.append(model([images()], mode='loss'))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_low_memory_keeps_no_activations_of_the_backbone():
    saved = {}
    for low_memory in (False, True):
        numbers = [0]

        def pack(tensor, numbers=numbers):
            numbers[0] += tensor.numel()
            return tensor

        model = build(low_memory=low_memory)
        torch.manual_seed(SEED)
        model([images()], mode='loss')  # the first batch checks
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model([images()], mode='loss')
        saved[low_memory] = numbers[0]
    assert saved[True] < 0.5 * saved[False]
