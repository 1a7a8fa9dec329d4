"""What a training step refuses, falls back from and reports; its gradients are in test_gradient_parity.py."""

import copy
import errno
import warnings
from functools import partial as bind

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from mmpretrain.registry import MODELS
from tiny import grouped
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed, Unsupported
from torch._inductor.exc import InvalidCxxCompiler

from mmebm.planning.step_cost import OpCounter
from mmebm.training_step.compiled import Compiled, make_traceable
from mmebm.training_step.low_memory import LowMemoryGradient

VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=16,
    patch_size=4,
    out_type='raw',
)


def build(backbone=VIT, channels=16, **options):
    torch.manual_seed(0)
    head = dict(type='mmebm.EnergyHead', in_channels=channels)
    options = dict(step_size=1.0) | options
    return MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=backbone, head=head, **grouped(options))).train()


def pair(num_images=4):
    clean = torch.randn(num_images, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return [clean.flip(2), clean]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(attention='flash'), "attention must be one of .*'explicit'"),
        (dict(micro_batch=0), 'micro_batch must be a whole number of at least 1, not 0'),
        (dict(micro_batch=2.5), 'micro_batch must be a whole number of at least 1, not 2.5'),
        (dict(nce_weight=float('nan')), 'nce_weight must be a number of at least 0, not nan'),
        (dict(compile=True, low_memory=True), 'compile=True excludes low_memory'),
        (dict(nce_weight=-0.1), 'nce_weight must be a number of at least 0, not -0.1'),
        (dict(nce_weight=0.1, low_memory=True), 'low_memory=True excludes nce_weight'),
        (dict(compile=True, attention='recomputed'), 'compile=True excludes'),
        (dict(low_memory=True, attention='recomputed'), 'low_memory=True excludes attention'),
        (dict(token_dropping=dict(patch_size=4, visible=0.9, corrupted=0.9)), 'token_dropping: visible'),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize('options', [dict(micro_batch=2), dict(low_memory=True)])
def test_batch_normalization_is_refused_where_a_batch_is_not_one_forward_pass(options):
    model = build(dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), 32, **options)
    with pytest.raises(ValueError, match='backbone.bn1: with micro_batch'):
        model.loss(pair())


PARTS = [dict(micro_batch=1), dict(micro_batch=3), dict(num_steps=2), dict(micro_batch=4), dict(low_memory=True)]


@pytest.mark.parametrize('options', PARTS)
def test_parts_report_what_the_whole_reports(options):
    steps = options.get('num_steps', 1)
    found = build(**options).loss(pair())
    model = build(num_steps=steps)
    restoration = model.restore(pair()[0])
    expected = sum(model.head.loss(image, pair()[1], pair()[0])['loss'] for image in restoration.images[1:])
    torch.testing.assert_close(found['loss'], expected)
    clean = pair()[1]
    ratio = (restoration.images[-1] - clean).square().sum() / (pair()[0] - clean).square().sum()
    torch.testing.assert_close(found['error_ratio'], ratio)
    last, initial = (model.head.loss(image, clean, pair()[0])['loss'] for image in (restoration.images[-1], pair()[0]))
    torch.testing.assert_close(found['objective_ratio'], last / initial)


@pytest.mark.parametrize('options', [dict(micro_batch=1), dict(low_memory=True), dict(low_memory=True, micro_batch=3)])
def test_calibration_in_parts_is_that_of_the_whole(options):
    whole, parts = build(step_size='auto'), build(step_size='auto', **options)
    for model in (whole, parts):
        model.loss(pair())
    torch.testing.assert_close(parts.step_size, whole.step_size)


@pytest.mark.parametrize('options', [dict(micro_batch=4), dict(low_memory=True)])
def test_the_first_step_with_its_calibration_takes_no_more_memory_than_later_ones(options):
    deep = VIT | dict(arch=VIT['arch'] | dict(num_layers=12))
    peaks = []
    with OpCounter() as counter:
        model = build(deep, step_size='auto', **options)
        for _ in range(2):
            counter.peak = counter.now
            model.loss(pair(16))['loss'].backward()
            model.zero_grad()
            peaks.append(counter.peak)
    first, later = peaks
    assert first < 1.02 * later


def test_failing_compilation_warns_once_and_trains_eagerly(monkeypatch):
    monkeypatch.setattr(torch, 'compile', Failing(InvalidCxxCompiler()))
    model = build(compile=True)
    with pytest.warns(UserWarning, match='continues without it: No working C.. compiler'):
        found = model.loss(pair())['loss']
    torch.testing.assert_close(found, build().loss(pair())['loss'])
    assert not model.training_step.step.is_compiled
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.loss(pair())


class Failing:
    """In place of ``torch.compile``: whatever it compiles raises an error."""

    def __init__(self, error):
        self.error = error

    def __call__(self, function, **kwargs):
        def fail(*args):
            raise self.error

        return fail


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ('raised', 'expected'),
    [
        (torch.OutOfMemoryError('allocated 80 GiB'), torch.OutOfMemoryError),  # of the compiled code
        (BackendCompilerFailed('inductor', torch.OutOfMemoryError('autotuning'), None), torch.OutOfMemoryError),
        (BackendCompilerFailed('inductor', MemoryError(), None), MemoryError),
        (caused(InvalidCxxCompiler(), OSError(errno.ENOSPC, 'No space left on device')), OSError),
        (OSError(errno.ENOSPC, 'No space left on device'), OSError),
        (RuntimeError('shapes of the compiled code'), RuntimeError),
    ],
    ids=str,
)
def test_what_is_no_fault_of_the_compilers_is_raised(raised, expected, monkeypatch):
    monkeypatch.setattr(torch, 'compile', Failing(raised))
    with warnings.catch_warnings(), pytest.raises(expected):
        warnings.simplefilter('error')
        build(compile=True).loss(pair())


def test_an_error_of_ones_own_code_is_raised_as_it_is(monkeypatch):
    """Dynamo reports what a traced function raises as unsupported; the user sees the function's own error."""
    monkeypatch.setattr(torch, 'compile', Failing(Unsupported('Observed exception')))
    model = build(compile=True)

    def wrong(*args):
        raise ValueError('patch_size 5 does not divide 16')

    model.head.loss = wrong
    with warnings.catch_warnings(), pytest.raises(ValueError, match='patch_size 5 does not divide 16'):
        warnings.simplefilter('error')
        model.loss(pair())


def test_more_shapes_than_the_compiler_allows_are_trained_eagerly(without_code_generation):
    model, limit = build(compile=True), torch._dynamo.config.patch(recompile_limit=2)
    with limit, pytest.warns(UserWarning, match='compile=True does not work here'):
        for num_images in (1, 2, 3):
            found = model.loss(pair(num_images))['loss']
    torch._dynamo.reset()
    assert not model.training_step.step.is_compiled
    torch.testing.assert_close(found, build().loss(pair(3))['loss'])


def test_a_copy_of_a_compiled_model_trains_its_own_weights(without_code_generation):
    model = build(compile=True)
    model.loss(pair())
    copied = copy.deepcopy(model)
    copied.loss(pair())['loss'].backward()
    assert all(p.grad is not None for p in copied.parameters()) and all(p.grad is None for p in model.parameters())
    assert copied.training_step.step.is_compiled
    torch._dynamo.reset()


def test_a_file_that_the_compiler_misses_is_its_fault(monkeypatch):
    error = BackendCompilerFailed('inductor', FileNotFoundError(errno.ENOENT, 'Python.h'), None)
    monkeypatch.setattr(torch, 'compile', Failing(error))
    with pytest.warns(UserWarning, match='compile=True does not work here'):
        found = build(compile=True).loss(pair())['loss']
    torch.testing.assert_close(found, build().loss(pair())['loss'])


@pytest.fixture
def without_backward_of(monkeypatch):
    """Everything compiles but the backward pass of so many images."""

    def fail_at(num_images):
        def compile_backward(graph, inputs):
            if any(value.shape[0] == num_images for value in inputs if value.ndim == 4):
                raise RuntimeError('no backward pass')
            return make_boxed_func(graph)

        backend = aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph), bw_compiler=compile_backward)
        monkeypatch.setattr(torch, 'compile', bind(torch.compile, backend=backend))

    yield fail_at
    torch._dynamo.reset()


def trained(model, num_images):
    loss = model.loss(pair(num_images))['loss']
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize('num_images', [4, 3])
def test_a_backward_pass_that_does_not_compile_is_known_in_time(num_images, without_backward_of):
    """In the first batch, or in the last one of an epoch, which is smaller."""
    expected = trained(build(), num_images)
    without_backward_of(num_images)
    model = build(compile=True)
    if num_images < 4:
        trained(model, 4)
        assert model.training_step.step.is_compiled
        model.zero_grad()
    with pytest.warns(UserWarning, match='compile=True does not work here'):
        found = trained(model, num_images)
    assert not model.training_step.step.is_compiled
    torch.testing.assert_close(found, expected)


def test_numbers_of_numpy_are_replaced_and_keep_their_value():
    model = build(VIT | dict(drop_path_rate=0.25))
    drop_path = model.backbone.layers[1].attn.out_drop
    assert isinstance(drop_path.drop_prob, np.generic)  # or the test is without object
    make_traceable(model)
    assert type(drop_path.drop_prob) is float
    assert drop_path.drop_prob == 0.25


def test_the_check_of_low_memory_draws_no_random_numbers():
    """A resumed run checks again, and must drop the paths that an uninterrupted one drops."""
    model = build(VIT | dict(drop_path_rate=0.5), low_memory=True)
    before = torch.get_rng_state()
    batch = model.patch_choice(*pair())
    model.training_step.check(type(model)._energy_fn, batch.corrupted, batch)
    assert torch.get_rng_state().equal(before)


def test_low_memory_gradients_that_are_wrong_are_refused(monkeypatch):
    """Without its replacement, torch's own derivative of LayerNorm's tangent is wrong, and says nothing."""
    from mmebm.ops import forward_mode

    replacements = {**forward_mode._REPLACEMENTS}
    del replacements[torch.nn.functional.layer_norm]
    monkeypatch.setattr(forward_mode, '_REPLACEMENTS', replacements)
    with pytest.raises(RuntimeError, match='low-memory gradients are wrong'):
        build(low_memory=True).loss(pair())


def test_low_memory_refuses_attention_that_it_cannot_see_into():
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())
    attention = torch.nn.MultiheadAttention(4, 1, batch_first=True)

    def energy(x):
        tokens = block(x.flatten(2).transpose(1, 2))
        return attention(tokens, tokens, tokens)[0].square().flatten(1).sum(dim=1)

    gradient = LowMemoryGradient(torch.nn.ModuleList([block, attention]))
    with pytest.raises(RuntimeError, match='low_memory cannot .*not exact for .*MultiheadAttention.*use micro_batch'):
        gradient.check(energy, torch.randn(1, 4, 2, 2))


def test_several_steps_hold_the_graph_of_one():
    def most_saved(num_steps):
        model, alive, most = build(num_steps=num_steps), [0], [0]

        class Saved:
            def __init__(self, tensor):
                self.tensor = tensor
                alive[0] += tensor.numel()
                most[0] = max(most[0], alive[0])

            def __del__(self):
                alive[0] -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            model.loss(pair())['loss'].backward()
        return most[0]

    assert most_saved(4) < 1.1 * most_saved(1)


def test_compiling_is_announced_for_each_batch_size(without_code_generation, monkeypatch):
    """The last batch of an epoch, which is smaller, compiles anew: silent, it would look as if training hung."""
    said = []
    monkeypatch.setattr('mmebm.training_step.compiled.print_log', lambda text, logger: said.append(text))
    compiled = Compiled(lambda x, scale: scale * x.square().sum(), nn.Identity())
    for size in (4, 4, 3, 4):
        assert compiled(torch.ones(size), 2.0).item() == 2 * size
    starts = [f'Compiling the training step for {size} images' for size in (4, 3)]
    assert [text.partition(' (')[0] for text in said[::2]] == starts
    assert all('--cfg-options model.training_step.compile=False skips it' in text for text in said[::2])
    assert all(text.startswith('Compiled in ') for text in said[1::2]) and len(said) == 4
