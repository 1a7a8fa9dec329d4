import pytest
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import nn

from mmebm.models import EBMAlgorithm, EnergyHead
from mmebm.models.selfsup.step_size import calibrated_log_step_size
from mmebm.models.selfsup.training_pair import TrainingPair

TINY_VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=8,
    patch_size=4,
    out_type='raw',
)
NORMALISED = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 55.0, 60.0])


def build(backbone=TINY_VIT, head=None, **kwargs):
    head = dict(type='mmebm.EnergyHead', in_channels=16, kind='mlp') | (head or {})
    model = MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=backbone, head=head, **kwargs))
    model.init_weights()
    return model


def pair(n=4, size=8):
    clean = torch.randn(n, 3, size, size)
    return [clean + torch.randn_like(clean), clean]


def without_gradient(model, inputs):
    model(inputs, mode='loss')['loss'].backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


class Square(BaseModule):
    """A backbone whose pooled, summed output is the image itself, so that its linear energy is a sum of squares."""

    def forward(self, x):
        return (x.flatten(2).square().transpose(1, 2),)


def square_energy(head=None, **kwargs):
    model = build(Square(), dict(in_channels=3, kind='linear', over='tokens') | (head or {}), **kwargs)
    model.head.energies[0].weight.data.fill_(0.5)  # E = |x|^2 / 2
    return model


def test_loss_in_closed_form():
    # One step on |x|^2 / 2 gives (1 - a) x.
    model = square_energy(step_size=0.25)
    clean, corrupted = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.8)
    losses = model([corrupted, clean], mode='loss')
    torch.testing.assert_close(losses['loss'], torch.tensor(0.6**2 / 2))
    torch.testing.assert_close(losses['error_ratio'], torch.tensor(0.75**2))
    torch.testing.assert_close(losses['objective_ratio'], torch.tensor(0.75**2))
    total, _ = model.parse_losses(losses)
    assert total.item() == losses['loss'].item()
    torch.testing.assert_close(losses['step_size'], torch.tensor([0.25]))


def test_losses_of_the_steps_are_added():
    # On |x|^2 / 2 with a = 1/2, from 0.8: 0.4 and 0.2, of which smooth L1 is half the square.
    model = square_energy(step_size=0.5, num_steps=2)
    clean, corrupted = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.8)
    losses = model([corrupted, clean], mode='loss')
    torch.testing.assert_close(losses['loss'], torch.tensor((0.4**2 + 0.2**2) / 2))
    torch.testing.assert_close(losses['error_ratio'], torch.tensor(0.25**2))
    torch.testing.assert_close(losses['objective_ratio'], torch.tensor(0.25**2))  # of the last step's image


def test_the_objective_falls_while_the_error_of_pixels_rises():
    """Of patterns within patches: of 2 z + 10, one step makes 1.5 z + 7.5, and z + 10 is wanted."""
    loss = dict(type='mmebm.RestorationLoss', kind='l1', norm_patch_size=4)
    model = square_energy(head=dict(loss=loss), step_size=0.25)
    z = torch.tensor([1.0, -1.0]).repeat(2, 3, 4, 2)
    losses = model([2 * z + 10, z + 10], mode='loss')
    torch.testing.assert_close(losses['error_ratio'], torch.tensor(0.5**2 + 2.5**2))
    torch.testing.assert_close(losses['objective_ratio'], torch.tensor(0.5))
    assert not losses['objective_ratio'].requires_grad


def test_the_objective_is_that_of_the_pixels_that_count():
    """Pixel by pixel, errors of 4 become 1, 2 and 3; the first is not kept, the last was not corrupted."""
    model = square_energy(head=dict(loss=dict(type='mmebm.RestorationLoss', kind='l1', region='corrupted')))
    clean, corrupted, restored = torch.zeros(3, 1, 3, 1, 4)
    corrupted[..., :3] = 4.0
    restored[...] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    where = torch.tensor([[[False, True, True, True]]])
    statistics = model._statistics(TrainingPair(corrupted, clean, None, where), restored)
    torch.testing.assert_close(statistics['objective_ratio'], torch.tensor((2 + 3) / (4 + 4)))


@pytest.mark.parametrize(('key', 'logged'), [('loss', True), ('loss_colour', False)])
def test_a_head_that_names_other_losses(key, logged):
    class Head(EnergyHead):
        def loss(self, restored, clean, corrupted, where=None):
            return {key: (restored - clean).abs().mean(), 'loss_of_weights': torch.ones(()), 'share': torch.ones(())}

    head = Head(in_channels=3, kind='linear')
    head.energies[0].weight.data.fill_(0.5)
    model = EBMAlgorithm(Square(), head, step_size=0.25)
    losses = model([torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)], mode='loss')
    assert ('objective_ratio' in losses) == logged
    if logged:
        torch.testing.assert_close(losses['objective_ratio'], torch.tensor(0.75))


def test_predict_in_closed_form():
    model = square_energy(step_size=0.5, num_steps=2, data_preprocessor=NORMALISED)
    corrupted, clean = pair(2)
    with torch.no_grad():
        samples = model([corrupted, clean], mode='predict')
    half_square = corrupted.square().sum((1, 2, 3)) / 2
    for i, sample in enumerate(samples):
        torch.testing.assert_close(sample.energies, half_square[i] * torch.tensor([1.0, 1 / 4, 1 / 16]))
        torch.testing.assert_close(sample.clean_energy, clean[i].square().sum() / 2)
        mean, std = (torch.tensor(NORMALISED[key]).view(3, 1, 1) for key in ('mean', 'std'))
        torch.testing.assert_close(sample.restored, (corrupted[i] / 4 * std + mean).clamp(0, 255))
        torch.testing.assert_close(sample.clean, (clean[i] * std + mean).clamp(0, 255))


def test_predict_restores_single_images():
    corrupted = pair(2)[0]
    sample = square_energy(step_size=0.5)(corrupted, mode='predict')[1]
    torch.testing.assert_close(sample.restored, (corrupted[1] / 2).clamp(0, 255))
    assert 'clean' not in sample


def test_an_image_without_a_batch_axis_is_no_batch_of_channels():
    with pytest.raises(ValueError, match=r'images \(N, C, H, W\), not \(3, 4, 4\): one is image\[None\]'):
        square_energy(step_size=0.5).restore(torch.ones(3, 4, 4))


@pytest.mark.parametrize('kind', ['mlp', 'quadratic'])
@pytest.mark.parametrize('over', ['pooled', 'tokens'])
def test_every_parameter_gets_a_gradient(kind, over):
    assert without_gradient(build(head=dict(kind=kind, over=over)), pair()) == []


def test_a_linear_energy_cannot_train_the_last_shift_which_is_therefore_frozen():
    assert without_gradient(build(head=dict(kind='linear')), pair()) == ['backbone.ln1.bias']
    model = build(head=dict(kind='linear'), frozen=['backbone.ln1.bias'])
    assert not model.backbone.ln1.bias.requires_grad
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['backbone.ln1.bias']


def test_auto_step_moves_a_tenth_as_far_as_the_corruption_did():
    model, inputs = build(), pair()
    model(inputs, mode='loss')
    restored = model.restore(inputs[0]).images[-1]
    torch.testing.assert_close(
        (restored - inputs[0]).square().mean().sqrt(), (inputs[0] - inputs[1]).square().mean().sqrt() / 10
    )


def test_auto_step_is_set_once_and_kept_in_the_checkpoint():
    model = build()
    model(pair(), mode='loss')
    state, step_size = model.state_dict(), model.step_size.item()
    model([10 * x for x in pair()], mode='loss')
    assert model.step_size.item() == step_size
    resumed = build()
    resumed.load_state_dict(state)
    resumed([10 * x for x in pair()], mode='loss')
    assert resumed.step_size.item() == step_size != 1.0


def test_auto_step_needs_a_corruption():
    clean = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match='images are corrupted'):
        build()([clean, clean.clone()], mode='loss')


@pytest.mark.parametrize('gradient', [float('inf'), float('nan'), 1e20, 0.0])  # the square of the third is infinite
def test_auto_step_needs_a_finite_gradient(gradient):
    with pytest.raises(ValueError, match='the energy has a finite gradient'):
        calibrated_log_step_size(torch.tensor(1.0), [torch.tensor([gradient])])


def test_training_lowers_the_loss():
    model, inputs = build(head=dict(kind='quadratic')), pair(16)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        losses.append(model(inputs, mode='loss')['loss'])
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_tensor_mode_gives_the_features_of_the_clean_image():
    model, (corrupted, clean) = build().eval(), pair()
    torch.testing.assert_close(model([corrupted, clean])[0], model.backbone(clean)[0])
    assert model(clean)[0].shape == (4, 5, 16)


def test_a_neck_stands_between_backbone_and_head():
    backbone = TINY_VIT | dict(out_type='featmap')
    model = build(backbone, dict(kind='quadratic'), neck=dict(type='GlobalAveragePooling'))
    assert without_gradient(model, pair()) == []
    assert model.neck(model(pair()))[0].shape == (4, 16)


class Wrapped(nn.Sequential):
    with_cp = True


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(num_steps=0), 'num_steps must be a whole number of at least 1, not 0'),
        (dict(num_steps=1.5), 'num_steps must be a whole number of at least 1, not 1.5'),
        (dict(step_size=float('inf')), "step_size must be a positive number or 'auto', not inf"),
        (dict(frozen='ln9.bias'), "frozen names 'ln9.bias'"),
        (dict(step_size=-1.0), "step_size must be a positive number or 'auto', not -1.0"),
        (dict(step_size='large'), "or 'auto', not 'large'"),
        (dict(frozen=['backbone.ln9.bias']), "frozen names 'backbone.ln9.bias'"),
        (dict(backbone=nn.Sequential(nn.SyncBatchNorm(3))), 'backbone.0: SyncBN has no double backward'),
        (dict(backbone=nn.Sequential(Wrapped())), 'backbone.0: with_cp=True'),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_what_the_runner_converts_to_syncbn_is_refused_too():
    model = build(dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), dict(in_channels=32))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(ValueError, match='backbone.bn1: SyncBN has no double backward'):
        model(pair(size=32), mode='loss')


@pytest.mark.parametrize('inputs', [torch.zeros(2, 3, 8, 8), [torch.zeros(2, 3, 8, 8)], pair(2)[:1] + pair(3)[:1]])
def test_inputs_that_are_no_pair_are_answered_with_what_to_do(inputs):
    with pytest.raises(ValueError, match='mmebm.CorruptedPair'):
        build()(inputs, mode='loss')
