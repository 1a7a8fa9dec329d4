"""Contents of patches that were not read, and the tokens that read them off the others."""

import pytest
import torch
from tiny import build_ebm, tiny_vit

from mmebm.models.selfsup.content_dropping import _read_by
from mmebm.models.selfsup.training_pair import TrainingPair

TOKENS = dict(patch_size=4, visible=0.5, corrupted=0.25)


def build(**options):
    torch.manual_seed(0)
    defaults = dict(content_dropping=dict(ratio=0.25), token_dropping=TOKENS, backbone=tiny_vit(img_size=16))
    return build_ebm(**defaults | options)


def test_what_is_not_read_is_missing():
    dropping = build(content_dropping=dict(ratio=0.2)).content_dropping
    assert dropping.shape == (3, 48)
    kept = torch.stack([torch.randperm(16)[:12].sort().values for _ in range(50)])
    missing = dropping.choose(kept, 16)
    assert missing.shape == (50, 3)
    assert all(not {*m} & {*k} and len({*m}) == 3 for m, k in zip(missing.tolist(), kept.tolist(), strict=True))
    assert len({tuple(row) for row in missing.tolist()}) > 40


def test_each_token_reads_the_memory_and_itself_alone():
    dropping = build().content_dropping
    missing, memory = torch.tensor([[1, 6, 9, 14]]), torch.randn(1, 13, 16)
    contents = torch.randn(1, 4, 48)
    whole = dropping.read(contents, missing, memory)
    assert whole.shape == (1, 4, 48)
    for i in range(4):
        alone = dropping.read(contents[:, [i]], missing[:, [i]], memory)
        torch.testing.assert_close(whole[:, [i]], alone)
    changed = dropping.read(contents, missing, memory + torch.randn_like(memory))
    assert (changed - whole).abs().amin(dim=2).min() > 0


@pytest.mark.parametrize('qkv_bias', [True, False])
def test_tokens_that_are_the_memory_and_read_it_alone_are_what_the_block_makes_of_it(qkv_bias):
    layer = build(backbone=tiny_vit(img_size=16, qkv_bias=qkv_bias)).backbone.layers[0]
    for p in layer.parameters():
        torch.nn.init.normal_(p)  # also biases, which are initialised as zeros
    memory = torch.randn(2, 5, 16)
    mask = torch.cat([torch.ones(5, 5, dtype=torch.bool), torch.zeros(5, 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(_read_by(layer, memory, memory, mask), layer(memory))


def test_an_empty_content_is_a_flat_patch():
    """Its token is the patch embedding of the mean colour, 0 in normalised pixels."""
    model = build()
    tokens = []
    model.backbone.layers[0].ln1.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
    model.content_dropping.read(torch.zeros(1, 1, 48), torch.tensor([[5]]), torch.zeros(1, 1, 16))
    embedding = model.backbone.patch_embed(torch.zeros(1, 3, 16, 16))[0][0, 5] + model.backbone.pos_embed[0, 1 + 5]
    torch.testing.assert_close(tokens[0][0, -1], embedding)


def test_loss_in_closed_form():
    dropping = build(content_dropping=dict(ratio=0.25, weight=0.5)).content_dropping
    clean = torch.zeros(1, 3, 16, 16)
    clean[:, :, :4, :2] = 2.0  # the first patch: half 0, half 2; mean 1, standard deviation 1
    pair = TrainingPair(None, clean, missing=torch.tensor([[0, 15]]))
    contents = torch.zeros(1, 2, 48)
    # |pattern|^2 of the first is 1 / (1 + 0.1^2), that of the flat one 0.
    torch.testing.assert_close(dropping.losses(contents, pair)['loss_content'], torch.tensor(0.5 * 0.5 / 1.01))


def test_a_step_restores_contents_down_the_gradient():
    """From zero, one step gives what is predicted; from elsewhere, also the change of the prediction."""
    model = build(step_size=2.0)
    clean = torch.randn(2, 3, 16, 16)
    corrupted = clean.clone()
    corrupted[:, :, :8] = 0
    pair = model.patch_choice(corrupted, clean)
    x = model.missing.start(corrupted)
    restored, _ = model._step(x.clone().requires_grad_(), pair)
    features = model._features(corrupted, pair.kept)[-1]
    contents = torch.zeros(2, 4, 48)
    predicted = model.content_dropping.read(contents, pair.missing, features)
    torch.testing.assert_close(model.missing.unpack(restored, clean.shape)[1][0], predicted)

    contents = torch.randn(2, 4, 48, requires_grad=True)
    energy = (contents.square() / 2 - contents * model.content_dropping.read(contents, pair.missing, features)).sum()
    (gradient,) = torch.autograd.grad(energy, contents)
    x[:, 3 * 256 :] = contents.detach().flatten(1)
    restored, _ = model._step(x.requires_grad_(), pair)
    torch.testing.assert_close(model.missing.unpack(restored, clean.shape)[1][0], contents - gradient)


def test_every_parameter_gets_a_gradient():
    model = build(token_nce_weight=1.0, position_dropping=dict(ratio=0.25), restored_share=0.5)
    clean = torch.randn(4, 3, 16, 16)
    losses = model.loss([clean * 0.5, clean])
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert losses['loss_content'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(content_dropping=dict(ratio=0)), 'ratio must be between 0 and 1'),
        (dict(content_dropping=dict(ratio=0.25, weight=0)), 'weight above 0'),
        (dict(token_dropping=None), 'it needs token_dropping'),
        (dict(training_step=dict(low_memory=True)), 'low_memory=True excludes content_dropping'),
        (dict(backbone=dict(type='mmpretrain.ResNet', depth=18), token_dropping=None), 'ResNet is not one of'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_too_many_patches_are_read():
    model = build(content_dropping=dict(ratio=0.5))
    with pytest.raises(ValueError, match='12 of 16 patches are read, which leaves fewer than the 8 of ratio'):
        model.loss([torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)])


def test_contents_are_embedded_as_patches_are_with_a_norm_too():
    backbone = tiny_vit(16, patch_cfg=dict(norm_cfg=dict(type='LN')))
    dropping = build_ebm(
        backbone,
        step_size=0.1,
        token_dropping=dict(patch_size=4, visible=0.5, corrupted=0.25),
        content_dropping=dict(ratio=0.25),
    ).content_dropping
    contents, missing, memory = torch.randn(1, 2, 48), torch.tensor([[0, 1]]), torch.randn(1, 5, 16)
    norm = dropping._network[0].patch_embed.norm
    before = dropping.read(contents, missing, memory)
    torch.nn.init.normal_(norm.weight)
    assert (dropping.read(contents, missing, memory) - before).abs().max() > 1e-3
