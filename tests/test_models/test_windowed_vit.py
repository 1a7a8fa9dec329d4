import pytest
import torch
from mmpretrain.models import VisionTransformer

from mmebm.models.backbones.windowed_vit import WindowedViT, window_indices

TINY = dict(
    arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
    img_size=32,
    patch_size=4,
    with_cls_token=True,
)


def build(cls=WindowedViT, **kwargs):
    """In evaluation mode, with positions and a class token that are not zero."""
    backbone = cls(**TINY | kwargs)
    backbone.init_weights()
    torch.nn.init.normal_(backbone.pos_embed)
    if backbone.cls_token is not None:
        torch.nn.init.normal_(backbone.cls_token)
    backbone.eval()
    return backbone


@torch.no_grad()
def features(backbone, images):
    return backbone(images)[-1]


@pytest.mark.parametrize('with_cls_token', [True, False])
@pytest.mark.parametrize(
    'options', [dict(num_global=4), dict(num_global=1, window_size=8), dict(num_global=0, window_size=50)]
)
def test_one_window_over_the_map_is_full_attention(options, with_cls_token):
    full = build(VisionTransformer, out_type='featmap', with_cls_token=with_cls_token)
    windowed = build(with_cls_token=with_cls_token, **options)
    windowed.load_state_dict(full.state_dict())  # strict: the same names and shapes
    for size in ((32, 32), (20, 28)):  # 8 x 8 and 5 x 7 patches
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(features(windowed, images), features(full, images), atol=1e-6, rtol=0)


def test_a_window_is_an_image_of_its_own():
    windowed = build(num_global=0, window_size=4)
    torch.nn.init.zeros_(windowed.pos_embed)
    images = torch.randn(2, 3, 32, 40)  # 8 x 10 patches: windows of 4 x 4, and of 4 x 2 at the right border
    whole = features(windowed, images)
    for top in (0, 4):
        for left, width in ((0, 4), (4, 4), (8, 2)):
            crop = images[:, :, 4 * top : 4 * top + 16, 4 * left : 4 * (left + width)]
            expected = features(windowed, crop)
            torch.testing.assert_close(whole[:, :, top : top + 4, left : left + width], expected, atol=1e-5, rtol=0)


def test_only_global_blocks_carry_information_between_windows():
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :16, :16] += 1  # the upper left window of 4 x 4 patches
    elsewhere = torch.ones(8, 8, dtype=torch.bool)
    elsewhere[:4, :4] = False
    for num_global in (0, 1):
        windowed = build(num_global=num_global, window_size=4)
        difference = (features(windowed, changed) - features(windowed, images))[0].abs().amax(dim=0)
        assert difference[:4, :4].min() > 1e-4
        assert (difference[elsewhere].max() > 1e-4) == (num_global == 1)
        assert num_global == 1 or difference[elsewhere].max() == 0


def test_the_copies_of_the_class_token_are_averaged():
    """After one windowed block, the class token is the mean of what each window, as an image, makes of it."""
    windowed = build(num_global=0, window_size=4)
    tokens = torch.randn(1, 1 + 64, 32)
    with torch.no_grad():
        result = windowed._in_windows(windowed.layers[:1], tokens, (8, 8))
        quarters = [torch.arange(64).view(8, 8)[i : i + 4, j : j + 4].flatten() for i in (0, 4) for j in (0, 4)]
        each = [windowed.layers[0](torch.cat([tokens[:, :1], tokens[:, 1 + quarter]], 1)) for quarter in quarters]
    torch.testing.assert_close(result[:, 0], torch.stack([x[:, 0] for x in each]).mean(0), atol=1e-6, rtol=0)
    for quarter, x in zip(quarters, each, strict=True):
        torch.testing.assert_close(result[:, 1 + quarter], x[:, 1:], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ('num_layers', 'num_global', 'expected'),
    [(12, 4, {2, 5, 8, 11}), (24, 4, {5, 11, 17, 23}), (4, 4, {0, 1, 2, 3}), (12, 0, set())],
)
def test_global_blocks_are_spread_evenly(num_layers, num_global, expected):
    arch = dict(TINY['arch'], num_layers=num_layers)
    assert WindowedViT(**TINY | dict(arch=arch), num_global=num_global).global_blocks == expected


def test_window_indices():
    whole, right, lower, corner = window_indices((3, 5), 2)
    assert whole.tolist() == [[0, 1, 5, 6], [2, 3, 7, 8]]
    assert right.tolist() == [[4, 9]]
    assert lower.tolist() == [[10, 11], [12, 13]]
    assert corner.tolist() == [[14]]
    # 1024 pixels in patches of 16
    assert [tuple(group.shape) for group in window_indices((64, 64), 14)] == [(16, 196), (4, 112), (4, 112), (1, 64)]


def test_every_parameter_gets_a_gradient():
    windowed = build(num_global=2, window_size=3)
    windowed.train()
    windowed(torch.randn(2, 3, 32, 32))[0].square().sum().backward()
    assert [name for name, p in windowed.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(('name', 'value'), [('window_size', 0), ('num_global', 5), ('num_global', -1)])
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=f'WindowedViT: {name} .* not {value}'):
        WindowedViT(**TINY, **{name: value})
