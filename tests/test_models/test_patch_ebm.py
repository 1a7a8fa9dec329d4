"""Restoring the contents of masked patches and the positions of position-dropped ones."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.autograd import gradcheck

from mmebm.energy import energy_gradient
from mmebm.models import PatchSubsetViT
from mmebm.models.patch_codec import PatchSplit
from mmebm.models.patches import gather_patches, patchify
from mmebm.models.selfsup.patch_ebm import SplitImages

SIZE, PATCH = 16, 4  # 16 patches
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
BACKBONE = dict(type='mmebm.PatchSubsetViT', arch=ARCH, img_size=SIZE, patch_size=PATCH, out_type='raw')
HEAD = dict(
    type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), patch_size=PATCH, embed_dims=16, num_heads=2
)
PREPROCESSOR = dict(mean=[120.0, 120.0, 120.0], std=[60.0, 60.0, 60.0])


def build(**options):
    """The same weights at every call, all moved off the values that hide mistakes: 0 and 1."""
    torch.manual_seed(0)
    config = dict(type='mmebm.PatchEBM', backbone=BACKBONE, head=HEAD, data_preprocessor=PREPROCESSOR)
    model = MODELS.build(config | options)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def images(num=3):
    return torch.randn(num, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def energy_fn(model, batch, draw):
    return model._energy_fn(SplitImages(batch, draw), model.head.codec.contents(batch))


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def test_features_of_all_patches_are_the_vits():
    vit, batch = build().backbone, images()
    everything = torch.arange(16).expand(3, -1)
    torch.testing.assert_close(vit(batch, everything, everything[:, :0]), vit(batch)[0])


def test_a_lost_patch_has_no_place_and_a_masked_one_no_influence():
    model, batch = build(), images()
    draw = model.draw(3)
    features = model.backbone(batch, draw.visible, draw.position_dropped)
    assert tuple(features.shape) == (3, 1 + 4 + 4, 16)
    zeros = batch.new_zeros(3, 8, 52)
    exchanged = draw.position_dropped.flip(1)
    # The dropped patches change positions among themselves, and the masked ones become flat.
    moved = model.head.codec.compose(batch, draw, zeros, exchanged)
    assert not moved.equal(batch)
    torch.testing.assert_close(model.backbone(moved, draw.visible, exchanged), features)


def test_every_patch_is_drawn_once():
    draw = build(visible_ratio=0.5, position_drop_ratio=0.125).draw(5)
    assert [indices.shape[1] for indices in draw] == [8, 2, 6]
    assert torch.cat(draw, dim=1).sort(dim=1).values.equal(torch.arange(16).expand(5, -1))
    assert not draw.visible[0].equal(draw.visible[1])


def test_four_views_see_every_patch_once_and_lose_it_once():
    draw = build().draw(3, views=4)
    for indices, times in zip(draw, (1, 1, 2), strict=True):
        by_image = indices.unflatten(0, (4, 3)).transpose(0, 1).flatten(1)
        counts = torch.zeros(3, 16, dtype=torch.long).scatter_add_(1, by_image, torch.ones_like(by_image))
        assert (counts == times).all()
    assert all(sorted(row.tolist()) == list(range(16)) for row in torch.cat(draw, dim=1))


def test_losses_of_views_are_the_means_of_theirs():
    model, batch = build(views=2), images()
    torch.manual_seed(3)
    losses = model.loss([batch])
    torch.manual_seed(3)
    draw = model.draw(3, views=2)
    single = build()
    for name in losses:
        parts = []
        for rows in (slice(0, 3), slice(3, 6)):
            part = type(draw)(*(indices[rows] for indices in draw))
            start = single.head.codec.start(part).requires_grad_()
            parts.append(single._step(start, SplitImages(batch, part))[1][name])
        torch.testing.assert_close(losses[name], sum(parts) / 2)


def test_refuses_less_than_one_view():
    for views in (0, 1.5):
        with pytest.raises(ValueError, match=f'views must be a whole number of at least 1, not {views}'):
            build(views=views)


def test_energy_of_what_predicts_nothing_is_half_the_square():
    """With P = Q = 0 the energy is |x|^2 / 2 + |p|^2 / 2 + |s|^2 / 2, and its gradient x and p."""
    model, batch = build(), images()
    for predictor in (model.head.content, model.head.position):
        torch.nn.init.zeros_(predictor.weight)
        torch.nn.init.zeros_(predictor.bias)
    draw = model.draw(3)
    missing = torch.randn_like(model.head.codec.start(draw))
    assert tuple(missing.shape) == (3, 8 * (48 + 3 + 1) + 4 * 16)
    energy, gradient = energy_gradient(energy_fn(model, batch, draw), missing, create_graph=False)
    visible = gather_patches(model.head.codec.contents(batch), draw.visible)
    torch.testing.assert_close(energy, (missing.square().sum(1) + visible.square().sum((1, 2))) / 2)
    torch.testing.assert_close(gradient, missing)


def test_energy_of_what_each_patch_predicts_of_itself():
    """Without attention, layers and norm, g of a patch is its own token, and the sum can be written down by patch."""
    model, batch = build(), images()
    head, draw = model.head, model.draw(3)
    head.layers, head.norm = torch.nn.ModuleList(), torch.nn.Identity()
    contents, missing = head.codec.contents(batch), torch.randn_like(head.codec.start(draw))
    masked, positions = head.codec.unpack(missing, draw)
    features = model.backbone(batch, draw.visible, draw.position_dropped)[:, 1:]  # without the class token
    for n, energy in enumerate(energy_fn(model, batch, draw)(missing)):
        errors = []
        for k, patch in enumerate(draw.visible[n]):
            token = head.read_visible(features[n, k]) + head.codec.positions[patch]
            errors.append(contents[n, patch] - head.content(token))
        for k, patch in enumerate(draw.masked[n]):
            errors.append(masked[n, k] - head.content(head.read_content(masked[n, k]) + head.codec.positions[patch]))
        for k in range(4):
            token = head.read_position_dropped(features[n, 4 + k]) + positions[n, k]
            errors.append(positions[n, k] - head.position(token))
        torch.testing.assert_close(energy, sum(error.square().sum() for error in errors) / 2)


def test_contents_are_patterns_and_statistics():
    batch = 5 + 3 * images()
    patterns, colors, log_stds = build().head.codec.contents(batch).split([48, 3, 1], dim=2)
    torch.testing.assert_close(patterns.mean(2), torch.zeros(3, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(patterns.std(2), torch.ones(3, 16), atol=1e-3, rtol=0)
    first = batch[:, :, :PATCH, PATCH : 2 * PATCH]  # the second patch of the first row
    torch.testing.assert_close(colors[:, 1], first.mean((2, 3)))
    torch.testing.assert_close(log_stds[:, 1, 0].exp(), first.flatten(1).std(1), atol=0, rtol=1e-3)


def test_a_flat_patch_has_no_pattern():
    codec = build().head.codec
    contents = codec.contents(torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE).clone())
    color = contents[0, 0, 48:51]
    torch.testing.assert_close(color, torch.tensor([0.5, -1.0, 2.0]))
    grey = build().head.codec.contents(torch.full((1, 3, SIZE, SIZE), 0.7))
    assert not grey[..., :48].any()
    torch.testing.assert_close(grey[..., 51].exp(), torch.full((1, 16), 1e-3).sqrt())


def test_the_truth_restored_costs_nothing():
    model, batch = build(), images()
    head, draw = model.head, model.draw(3)
    contents = head.codec.contents(batch)
    torch.nn.init.constant_(head.logit_scale, 4.0)
    truth = head.codec.truth(contents, draw)
    losses = head.loss(truth, contents, draw)
    assert losses['loss_pattern'].item() == losses['loss_statistics'].item() == 0
    assert losses['loss_position'].item() < 0.01
    assert losses['position_accuracy'].item() == 1
    masked, positions = head.codec.unpack(truth, draw)
    assert head.codec.assign(positions, draw).equal(draw.position_dropped)
    torch.testing.assert_close(head.codec.compose(batch, draw, masked, draw.position_dropped), batch, atol=1e-5, rtol=0)


def test_losses_are_means_over_patterns_and_over_statistics():
    model, batch = build(), images()
    head, draw = model.head, model.draw(3)
    contents = head.codec.contents(batch)
    truth = head.codec.truth(contents, draw)
    masked, _ = head.codec.unpack(truth.clone(), draw)
    masked[..., :48] += 2.0
    masked[..., 48:] -= 3.0
    restored = torch.cat([masked.flatten(1), truth[:, 8 * 52 :]], dim=1)
    losses = head.loss(restored, contents, draw)
    assert losses['loss_pattern'].item() == pytest.approx(4.0, rel=1e-5)
    assert losses['loss_statistics'].item() == pytest.approx(0.3 * 9.0, rel=1e-5)


def test_positions_are_listed_row_by_row_and_equally_long():
    head = MODELS.build(dict(HEAD, grid_size=(2, 3)))
    squares = head.codec.positions.square().sum(1)
    torch.testing.assert_close(squares, squares[:1].expand(6))
    # Half of the values tell the row, the other half the column.
    rows, columns = head.codec.positions[:, :8], head.codec.positions[:, 8:]
    assert columns[0].equal(columns[3]) and not columns[0].equal(columns[1])
    assert rows[0].equal(rows[2]) and not rows[0].equal(rows[3])


def test_gradients_agree_with_finite_differences():
    """Of the loss, which itself contains the gradient of the energy, by a weight of each part."""
    model, batch = build().double(), images(2).double()
    draw = model.draw(2)
    parts = [
        model.backbone.patch_embed.projection.weight,
        model.head.layers[0].attn.qkv.weight,
        model.head.position.weight,
    ]

    def loss(*changes):
        kept = [part.detach().clone() for part in parts]
        for part, change in zip(parts, changes, strict=True):
            part.data.copy_(part.data + change.detach())
        _, losses = model._step(model.head.codec.start(draw).requires_grad_(), SplitImages(batch, draw))
        value = total(losses)
        gradients = torch.autograd.grad(value, parts)
        for part, before in zip(parts, kept, strict=True):
            part.data.copy_(before)
        return value.detach(), gradients

    zeros = [torch.zeros_like(part) for part in parts]
    _, gradients = loss(*zeros)
    torch.manual_seed(2)
    for i, gradient in enumerate(gradients):
        direction = [zero.clone() for zero in zeros]
        direction[i] = torch.randn_like(gradient)
        ahead, _ = loss(*[1e-5 * d for d in direction])
        behind, _ = loss(*[-1e-5 * d for d in direction])
        slope = (ahead - behind).item() / 2e-5
        assert (gradient * direction[i]).sum().item() == pytest.approx(slope, rel=1e-5)


def test_the_energy_itself_passes_gradcheck():
    model, batch = build().double(), images(2).double()
    draw = model.draw(2)
    missing = (0.1 * torch.randn(model.head.codec.start(draw).shape, dtype=torch.float64)).requires_grad_()
    assert gradcheck(energy_fn(model, batch, draw), missing, fast_mode=True)


@pytest.mark.parametrize('compile', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_reaches_every_parameter(compile, without_code_generation):
    model = build(training_step=dict(compile=compile))
    torch.manual_seed(3)
    losses = model.loss([images()])
    total(losses).backward()
    assert not compile or model.training_step.step.is_compiled
    dead = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert dead == []
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['backbone.pos_embed']


@pytest.mark.slow
def test_compiled_and_eager_gradients_agree(without_code_generation):
    gradients = []
    for compile in (False, True):
        model = build(training_step=dict(compile=compile))
        torch.manual_seed(3)
        losses = model.loss([images()])
        total(losses).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], expected, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f'{n}: {m}'
        )


def test_gradients_under_autocast():
    """Against those in float64."""
    found = []
    for dtype in (torch.float64, torch.bfloat16):
        model, batch = build(), images()
        if dtype is torch.float64:
            model, batch = model.double(), batch.double()
        torch.manual_seed(3)
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
            losses = model.loss([batch])
        total(losses).backward()
        found.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))
    assert (found[1] - found[0]).norm() / found[0].norm() < 2e-2


def test_predictions_are_pictures_and_energies():
    model, batch = build().eval(), images()
    before = torch.get_rng_state()
    with torch.no_grad():
        samples = model([batch], mode='predict')
    again = model(batch, mode='predict')
    assert torch.get_rng_state().equal(before)
    for sample, same in zip(samples, again, strict=True):
        for field in ('clean', 'corrupted', 'restored'):
            assert tuple(sample.get(field).shape) == (3, SIZE, SIZE)
            assert sample.get(field).equal(same.get(field))
        assert tuple(sample.energies.shape) == (2,)
        assert sample.clean_energy.dim() == 0
    pixels = (batch * 60 + 120).clamp(0, 255)
    torch.testing.assert_close(torch.stack([sample.clean for sample in samples]), pixels)
    # A quarter of the patches is visible, and stays.
    draw = model.draw(3, generator=torch.Generator().manual_seed(0))
    fn, start = energy_fn(model, batch, draw), model.head.codec.start(draw)
    energy, gradient = energy_gradient(fn, start, create_graph=False)
    restored = -gradient
    torch.testing.assert_close(
        torch.stack([sample.energies for sample in samples]), torch.stack([energy, fn(restored)], dim=1)
    )
    codec = model.head.codec
    truth = [gather_patches(codec.contents(batch), draw.masked), codec.positions[draw.position_dropped]]
    clean_energy = fn(torch.cat([part.flatten(1) for part in truth], dim=1))
    torch.testing.assert_close(torch.stack([sample.clean_energy for sample in samples]), clean_energy)
    contents, positions = model.head.codec.unpack(restored, draw)
    composed = model.head.codec.compose(batch, draw, contents, model.head.codec.assign(positions, draw))
    torch.testing.assert_close(
        torch.stack([sample.restored for sample in samples]), (composed * 60 + 120).clamp(0, 255)
    )
    for field in ('corrupted', 'restored'):
        patches = [patchify(torch.stack([s.get(name) for s in samples]), PATCH) for name in (field, 'clean')]
        kept = (patches[0] - patches[1]).abs().amax(2) < 1e-3
        assert kept.gather(1, draw.visible).all() and not kept.gather(1, draw.masked).any()


def test_restoration_is_learned():
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = torch.linspace(-1, 1, SIZE).expand(8, 3, SIZE, SIZE) * torch.randn(8, 3, 1, 1)
    torch.manual_seed(0)
    history = []
    for _ in range(60):
        losses = model.loss([batch])
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append(losses['loss_pattern'].item())
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


@pytest.mark.parametrize(
    'shares', [dict(visible_ratio=0.0), dict(position_drop_ratio=0.0), dict(visible_ratio=0.5, position_drop_ratio=0.5)]
)
def test_refuses_shares_that_leave_nothing(shares):
    with pytest.raises(ValueError, match='PatchEBM: visible_ratio='):
        build(**shares)


def test_refuses_other_sizes_and_pairs():
    model = build()
    with pytest.raises(ValueError, match='needs one view of 16 x 16 pixels .* not 1 of 8 x 8'):
        model.loss([torch.zeros(2, 3, 8, 8)])
    with pytest.raises(ValueError, match='not 2 of 16 x 16'):
        model.loss([images(), images()])


@pytest.mark.parametrize(
    'head, backbone',
    [
        (dict(grid_size=(4, 4), patch_size=4), dict(img_size=32)),  # positions of the backbone would be those of others
        (dict(grid_size=(4, 4), patch_size=4), dict(patch_size=2)),
        (dict(grid_size=(2, 2), patch_size=8), dict()),
    ],
)
def test_refuses_a_head_of_other_patches(head, backbone):
    with pytest.raises(ValueError, match=r'head.grid_size is \(\d, \d\) and head.patch_size \d; they must agree'):
        build(head=HEAD | head, backbone=BACKBONE | backbone)


def test_a_head_keeps_the_weights_that_it_loads(tmp_path):
    trained = build().head
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'head.pth')
    loaded = MODELS.build(HEAD | dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))))
    loaded.init_weights()
    torch.testing.assert_close(loaded.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_refuses_overlapping_patches():
    with pytest.raises(ValueError, match='patches of 8 pixels, 4 apart, overlap'):
        PatchSubsetViT(arch=ARCH, img_size=SIZE, patch_size=PATCH, patch_cfg=dict(kernel_size=8, padding=2))


def test_positions_are_told_apart_under_autocast():
    """At full width, neighbours' products differ by less than bfloat16 resolves."""
    head = MODELS.build(HEAD | dict(grid_size=(14, 14), embed_dims=512, num_heads=8))
    torch.manual_seed(0)
    dropped = torch.arange(196).view(4, 49)
    draw = PatchSplit(visible=dropped[:, :0], position_dropped=dropped, masked=dropped[:, :0])
    # Between each place and the next, a little nearer to its own.
    positions = (0.55 * head.codec.positions + 0.45 * head.codec.positions.roll(-1, 0))[dropped].requires_grad_()
    missing, contents = positions.flatten(1), torch.zeros(4, 196, head.codec.content_dims)
    found = {}
    for enabled in (False, True):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            losses = head.loss(missing, contents, draw)
            cells = head.codec.assign(positions.detach(), draw)
        (gradient,) = torch.autograd.grad(losses['loss_position'], positions)
        found[enabled] = losses['position_accuracy'], losses['loss_position'], gradient, cells
    assert found[False][0] == 1.0
    torch.testing.assert_close(found[True], found[False])
