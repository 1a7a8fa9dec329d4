"""The gate of token-wise contrast and of dropped positions: a reference in float64, and that by finite differences."""

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same_gradients, gradients, use_reference_attention
from mmpretrain.registry import MODELS
from tiny import grouped, tiny_vit

SIZE, PATCH = 16, 4  # 16 patches
LOSS = dict(type='mmebm.RestorationLoss', kind='l2', region='corrupted', loss_weight=0.5)
OPTIONS = {
    'token nce': dict(token_nce_weight=0.7),
    'positions': dict(position_dropping=dict(ratio=0.25)),
    'both, tokens dropped': dict(
        token_nce_weight=0.7,
        position_dropping=dict(ratio=0.25),
        token_dropping=dict(patch_size=PATCH, visible=0.4, corrupted=0.25),
    ),
    'contents': dict(
        content_dropping=dict(ratio=0.2, weight=0.6),
        token_dropping=dict(patch_size=PATCH, visible=0.4, corrupted=0.25),
    ),
    'all': dict(
        token_nce_weight=0.7,
        position_dropping=dict(ratio=0.25),
        content_dropping=dict(ratio=0.2, weight=0.6),
        token_dropping=dict(patch_size=PATCH, visible=0.4, corrupted=0.25),
    ),
}
WAYS = [
    dict(),
    dict(attention='recomputed'),
    dict(micro_batch=1),
    pytest.param(dict(compile=True), marks=pytest.mark.slow),
    pytest.param(dict(compile=True, micro_batch=2), marks=pytest.mark.slow),
]


def build(**options):
    """The same weights at every call, all moved off the values that hide mistakes: 0 and 1."""
    torch.manual_seed(0)
    config = dict(type='mmebm.EBMAlgorithm', backbone=tiny_vit(img_size=SIZE), step_size=3.0)
    head = dict(type='mmebm.EnergyHead', in_channels=16, loss=LOSS)
    model = MODELS.build(config | dict(head=head) | grouped(options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def images():
    """Pairs whose first half is corrupted."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(4, 3, SIZE, SIZE, generator=generator)
    corrupted = clean.clone()
    corrupted[:, :, : SIZE // 2] = torch.randn(4, 3, SIZE // 2, SIZE, generator=generator)
    return corrupted, clean


def choose_always(model):
    """Lets a model keep and drop the same patches in each step."""
    corrupted, clean = images()
    torch.manual_seed(2)
    pair = model.patch_choice(corrupted, clean)
    if model.token_dropping:
        model.token_dropping.choose = lambda *_: pair.kept
    if model.position_dropping:
        model.position_dropping.choose = lambda *_: pair.dropped
    if model.content_dropping:
        model.content_dropping.choose = lambda *_: pair.missing
    return pair


def of_patches(values, indices):
    """Rows of (N, L, ...) at indices (N, M)."""
    return torch.stack([image[rows] for image, rows in zip(values, indices, strict=True)])


def read_contents(model, contents, missing, features):
    """What is predicted for missing contents (N, R, 48), one by one: each asks all features, and itself."""
    vit, rows = model.backbone, []
    projection = vit.patch_embed.projection
    for content, indices, memory in zip(contents, missing, features, strict=True):
        predicted = []
        for value, index in zip(content, indices, strict=True):
            token = F.linear(value, projection.weight.flatten(1), projection.bias) + vit.pos_embed[0, 1 + index]
            for layer in vit.layers:
                keys = layer.ln1(torch.cat([memory, token[None]]))
                query, key, value = (
                    part.unflatten(1, (layer.attn.num_heads, -1)) for part in layer.attn.qkv(keys).chunk(3, 1)
                )
                weights = torch.einsum('hd,khd->kh', query[-1], key) / key.shape[-1] ** 0.5
                token = token + layer.attn.proj(torch.einsum('kh,khd->hd', weights.softmax(dim=0), value).flatten())
                token = layer.ffn(layer.ln2(token), identity=token)
            predicted.append(model.content_dropping.predict(vit.ln1(token)))
        rows.append(torch.stack(predicted))
    return torch.stack(rows)


def reference_loss(model, pair):
    """A step and its losses, in torch and the network's own layers: no hooks, no packing."""
    vit = model.backbone
    everything = torch.arange(16).expand(4, 16)
    kept = everything if pair.kept is None else pair.kept
    corrupted, clean = (view.double() for view in images())
    x = corrupted.clone().requires_grad_()
    p = torch.zeros(4, 0 if pair.dropped is None else pair.dropped.shape[1], 16, dtype=torch.float64).requires_grad_()
    tokens, own = of_patches(vit.patch_embed(x)[0], kept), vit.pos_embed[0, 1:]
    places = own[kept]
    if pair.dropped is not None:
        where = torch.zeros(kept.shape, dtype=torch.bool).scatter(1, pair.dropped, True)
        places = places.masked_scatter(where.unsqueeze(-1), p @ own)
    sequence = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(4, -1, -1), tokens + places], dim=1)
    for layer in vit.layers:
        sequence = layer(sequence)
    features = vit.ln1(sequence)
    energies = model.head.energies[0](features)
    total = energies.sum()
    if pair.dropped is not None:
        logits = model.position_dropping.predict(of_patches(features, pair.dropped + 1))
        total = total + (p.square() / 2 - p * logits).sum()
    c = torch.zeros(4, 0 if pair.missing is None else 3, 48, dtype=torch.float64).requires_grad_()
    if pair.missing is not None:
        total = total + (c.square() / 2 - c * read_contents(model, c, pair.missing, features)).sum()
    of_images, of_positions, of_contents = torch.autograd.grad(total, [x, p, c], create_graph=True, allow_unused=True)
    restored = corrupted - model.log_step_size.exp() * of_images
    losses = []
    for n in range(4):
        rows = [divmod(index, 4) for index in kept[n].tolist() if index < 8]  # the corrupted ones
        errors = [(restored - clean)[n, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].square().mean() for i, j in rows]
        losses.append(0.5 * torch.stack(errors).mean())
        if model.token_nce_weight:
            dropped = set() if pair.dropped is None else set(pair.dropped[n].tolist())
            terms = [
                F.softplus(-energies[n, 1 + m] if index < 8 else energies[n, 1 + m])
                for m, index in enumerate(kept[n].tolist())
                if m not in dropped
            ]
            losses.append(0.7 * torch.stack(terms).mean())
        if pair.dropped is not None:
            losses.append(0.3 * F.cross_entropy(-of_positions[n], kept[n][pair.dropped[n]]))
        if pair.missing is not None:
            for content, index in zip(-of_contents[n], pair.missing[n].tolist(), strict=True):
                i, j = divmod(index, 4)
                patch = clean[n, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                pattern = (patch - patch.mean()) / (patch.var(correction=0) + 0.01).sqrt()
                losses.append(0.6 / 3 * (content - pattern.flatten()).square().mean())
    return torch.stack(losses).sum() / 4


def reference_gradients(options):
    pair = choose_always(build(**options))
    model = build(**options).double()
    use_reference_attention(model)
    reference_loss(model, pair).backward()
    return gradients(model)


@pytest.mark.parametrize('name', OPTIONS)
def test_reference_agrees_with_finite_differences(name):
    pair = choose_always(build(**OPTIONS[name]))
    model = build(**OPTIONS[name]).double()
    use_reference_attention(model)
    reference_loss(model, pair).backward()
    for parameter_name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        slope, step, values = (parameter.grad * direction).sum().item(), 1e-5, []
        for sign in (1, -1):
            parameter.data.add_(direction, alpha=sign * step)
            values.append(reference_loss(model, pair).item())
            parameter.data.sub_(direction, alpha=sign * step)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-9), parameter_name


@pytest.mark.parametrize('way', WAYS, ids=str)
@pytest.mark.parametrize('name', OPTIONS)
def test_gradients(name, way, without_code_generation):
    model = build(**OPTIONS[name], **way)
    choose_always(model)
    losses = model([*images()], mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert_same_gradients(gradients(model), reference_gradients(OPTIONS[name]), 1e-5)
