"""The gate of every way to compute a training step: the gradients of a reference written here, in float64.

Several plausible ways to differentiate twice give wrong gradients and no error. So each way that ships is compared with
the reference on every parameter, and the reference with finite differences.
"""

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same_gradients, gradients, relative_error, use_reference_attention
from mmpretrain.registry import MODELS
from tiny import grouped

SIZE = 32
STEP_SIZE = 3.0
COMPILED = pytest.param(dict(compile=True), marks=pytest.mark.slow)  # one of them is among the fast tests
DROPPING = dict(patch_size=8, visible=0.25, corrupted=0.25)

# The backbone, and the width of its last features.
BACKBONES = {
    'vit': (
        dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
            img_size=SIZE,
            patch_size=8,
            out_type='raw',
        ),
        16,
    ),
    'swin': (
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]),
            img_size=SIZE,
            window_size=4,
            out_indices=(1,),
            drop_path_rate=0.0,
        ),
        16,
    ),
    'convnext': (
        dict(
            type='ConvNeXt', arch=dict(depths=[2, 2], channels=[8, 16]), out_indices=(1,), gap_before_final_norm=False
        ),
        16,
    ),
    'resnet': (
        dict(
            type='ResNet',
            depth=18,
            base_channels=4,
            stem_channels=4,
            num_stages=2,
            out_indices=(1,),
            strides=(1, 2),
            dilations=(1, 1),
        ),
        8,
    ),  # fmt: skip
    'timm-vit': (
        dict(
            type='TIMMBackbone',
            model_name='vit_tiny_patch16_224',
            embed_dim=16,
            depth=2,
            num_heads=2,
            img_size=SIZE,
            patch_size=8,
        ),
        16,
    ),  # fmt: skip
}


RESIDUAL = dict(type='mmebm.ResidualEnergyHead', patch_size=8)


def build(name, head=None, **options):
    """The same weights at every call. Every parameter is moved off the values that hide mistakes: 0 and 1."""
    torch.manual_seed(0)
    backbone, channels = BACKBONES[name]
    model = MODELS.build(
        dict(
            type='mmebm.EBMAlgorithm',
            backbone=backbone,
            head=dict(head or dict(type='mmebm.EnergyHead'), in_channels=channels),
            step_size=STEP_SIZE,
            **grouped(options),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.train()


def pair(num_images=4):
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(num_images, 3, SIZE, SIZE, generator=generator)
    corrupted = clean.clone()
    corrupted[..., : SIZE // 2] = torch.randn(num_images, 3, SIZE, SIZE // 2, generator=generator)
    return corrupted, clean


def reference_loss(model, images, clean, nce_weight=0.0):
    """One restoration step and its losses, in nothing but torch."""
    images = images.detach().requires_grad_()
    energy = model.energy(images)
    (gradient,) = torch.autograd.grad(energy.sum(), images, create_graph=True)
    restored = images.detach() - model.log_step_size.exp() * gradient
    cross_entropy = sum(
        F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, is_corrupted))
        for logits, is_corrupted in ((model.energy(clean), 0.0), (energy, 1.0))
    )
    return F.smooth_l1_loss(restored, clean) + nce_weight * cross_entropy, restored.detach()


def make_smooth(model):
    """The energy's gradient jumps where a ReLU bends, and with it the loss."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Softplus())


def reference_gradients(name, num_steps=1, head=None, nce_weight=0.0):
    model = build(name, head).double()
    use_reference_attention(model)
    images, clean = (view.double() for view in pair())
    for _ in range(num_steps):
        loss, images = reference_loss(model, images, clean, nce_weight)
        loss.backward()
    return gradients(model)


def gradients_of_step(model, dtype=torch.float32):
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        losses = model([*pair()], mode='loss')
        loss = sum(value for name, value in losses.items() if 'loss' in name)
    scale = 2.0**16 if dtype == torch.float16 else 1.0  # what AmpOptimWrapper's scaler begins with
    (loss * scale).backward()
    return {name: None if grad is None else grad / scale for name, grad in gradients(model).items()}


@pytest.mark.parametrize('name', BACKBONES)
def test_reference_agrees_with_finite_differences(name):
    model = build(name).double()
    use_reference_attention(model)
    make_smooth(model)
    images, clean = (view.double() for view in pair())
    reference_loss(model, images, clean)[0].backward()
    for parameter_name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        slope, step = (parameter.grad * direction).sum().item(), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
            values.append(reference_loss(model, images, clean)[0].item())
            with torch.no_grad():
                parameter.sub_(direction, alpha=sign * step)
        difference = (values[0] - values[1]) / (2 * step)
        assert difference == pytest.approx(slope, rel=1e-4, abs=1e-9), parameter_name


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(attention='recomputed'),
        dict(low_memory=True),
        dict(micro_batch=1),
        dict(micro_batch=3),
        dict(micro_batch=2, low_memory=True),
    ],
    ids=str,
)
def test_gradients_in_float32(name, options):
    if name == 'resnet' and options.keys() & {'low_memory', 'micro_batch'}:
        pytest.skip('batch normalisation is refused there')
    assert_same_gradients(gradients_of_step(build(name, **options)), reference_gradients(name), 1e-5)


@pytest.fixture(autouse=True)
def forget_compiled_functions():
    """The compiler allows one function a few models only."""
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow if name != 'vit' else ()) for name in BACKBONES]
)
def test_gradients_of_the_compiled_step(name, without_code_generation):
    model = build(name, compile=True)
    found = gradients_of_step(model)
    assert model.training_step.step.is_compiled
    assert_same_gradients(found, reference_gradients(name), 1e-5)


@pytest.mark.slow
def test_gradients_of_the_compiled_step_with_code_generation(code_generation):
    model = build('vit', compile=True)
    assert_same_gradients(gradients_of_step(model), reference_gradients('vit'), 1e-5)
    assert model.training_step.step.is_compiled


@pytest.mark.parametrize('options', [dict(), dict(low_memory=True), dict(micro_batch=3), COMPILED], ids=str)
def test_gradients_of_several_steps(options, without_code_generation):
    found = gradients_of_step(build('vit', num_steps=3, **options))
    assert_same_gradients(found, reference_gradients('vit', num_steps=3), 1e-5)


@pytest.mark.parametrize(
    'options',
    [dict(), dict(micro_batch=3), COMPILED, dict(attention='recomputed'), dict(num_steps=2)],
    ids=str,
)
def test_gradients_with_noise_contrastive_estimation(options, without_code_generation):
    found = gradients_of_step(build('vit', nce_weight=0.3, **options))
    expected = reference_gradients('vit', num_steps=options.get('num_steps', 1), nce_weight=0.3)
    assert_same_gradients(found, expected, 1e-5)
    assert relative_error(found, reference_gradients('vit', num_steps=options.get('num_steps', 1))) > 0.01


@pytest.mark.parametrize('options', [dict(low_memory=True), COMPILED], ids=str)
def test_the_same_paths_are_dropped(options, without_code_generation):
    found = []
    for chosen in (dict(), options):
        model = build('vit', **chosen)
        for block in model.backbone.layers:
            block.attn.out_drop.drop_prob = block.ffn.dropout_layer.drop_prob = 0.5
        torch.manual_seed(5)
        found.append(gradients_of_step(model))
    assert_same_gradients(found[1], {name: grad.double() for name, grad in found[0].items()}, 1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    'options',
    [dict(), dict(attention='recomputed'), dict(low_memory=True), dict(micro_batch=3), COMPILED],
    ids=str,
)
def test_gradients_in_half_precision(options, dtype, without_code_generation):
    found = gradients_of_step(build('vit', **options), dtype)
    assert relative_error(found, reference_gradients('vit')) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    'options', [dict(), dict(low_memory=True), dict(micro_batch=3), dict(num_steps=2), COMPILED], ids=str
)
@pytest.mark.parametrize('name', ['vit', 'timm-vit', 'convnext'])
def test_gradients_of_the_residual_energy(name, options, without_code_generation):
    found = gradients_of_step(build(name, RESIDUAL, **options))
    assert_same_gradients(found, reference_gradients(name, options.get('num_steps', 1), RESIDUAL), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(attention='recomputed'),
        dict(low_memory=True),
        dict(micro_batch=1),
        dict(compile=True, micro_batch=2),
    ],
    ids=str,
)
@pytest.mark.parametrize(('name', 'head'), [('vit', None), ('timm-vit', None), ('vit', RESIDUAL)])
def test_gradients_of_a_part(name, head, options, without_code_generation):
    """Dropped tokens are as if the image had never had them: the reference gathers them by hand."""
    model = build(name, head, token_dropping=DROPPING, **options)
    kept = {}
    choose = model.token_dropping.choose
    for _ in range(2):  # the second time, other tokens: a compiled step must not keep the first ones

        def choose_and_note(pair):
            kept['tokens'] = choose(pair)
            return kept['tokens']

        model.token_dropping.choose = choose_and_note
        model.zero_grad()
        found = gradients_of_step(model)
        assert_same_gradients(found, reference_gradients_of_a_part(name, head, kept['tokens']), 1e-5)


def reference_gradients_of_a_part(name, head, kept):
    model = build(name, head).double()
    use_reference_attention(model)
    corrupted, clean = (view.double() for view in pair())
    blocks = model.backbone.layers if name == 'vit' else model.backbone.timm_model.blocks
    with_class_token = torch.cat([torch.zeros(len(kept), 1, dtype=torch.long), kept + 1], dim=1)
    blocks[0].register_forward_pre_hook(
        lambda _, args: torch.stack([image[index] for image, index in zip(args[0], with_class_token, strict=True)])
    )
    images = corrupted.requires_grad_()
    arguments = (images, kept) if head else ()
    energy = model.head(model.backbone(images), *arguments).sum()
    (gradient,) = torch.autograd.grad(energy, images, create_graph=True)
    restored = images.detach() - model.log_step_size.exp() * gradient
    losses = []
    for image, target, indices in zip(restored, clean, kept, strict=True):
        patches = [(slice(None), *(slice(8 * i, 8 * i + 8) for i in divmod(int(n), SIZE // 8))) for n in indices]
        losses += [F.smooth_l1_loss(image[patch], target[patch]) for patch in patches]
    torch.stack(losses).mean().backward()
    return gradients(model)
