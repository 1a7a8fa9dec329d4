import pytest
import torch

from mmebm.models import RestorationLoss


@pytest.mark.parametrize(('kind', 'expected'), [('smooth_l1', 1.5), ('l2', 4.0), ('l1', 2.0)])
def test_closed_forms(kind, expected):
    clean = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(RestorationLoss(kind)(clean + 2, clean, clean), torch.tensor(expected))


def test_only_the_corrupted_pixels_count_and_images_count_alike():
    clean, corrupted = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    corrupted[0, 1, 0, 0] = 1.0  # one channel of one pixel is enough
    corrupted[1] = 1.0
    restored = torch.full_like(clean, 5.0)
    restored[0, :, 0, 0] = 1.0
    loss = RestorationLoss('l1', region='corrupted')(restored, clean, corrupted)
    torch.testing.assert_close(loss, torch.tensor((1.0 + 5.0) / 2))


def test_an_image_that_is_not_corrupted_adds_nothing():
    clean = torch.rand(1, 3, 4, 4)
    assert RestorationLoss(region='corrupted')(clean + 1, clean, clean) == 0


def two_patches():
    """Patches of 2 x 2 pixels: left values +-1 (deviation 1), right values +-10 (deviation 10)."""
    left, right = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([[10.0, -10.0], [-10.0, 10.0]])
    return torch.cat([left, right], dim=1).expand(1, 3, 2, 4)


def test_patterns_count_in_units_of_the_patch_deviation():
    clean = two_patches()
    loss = RestorationLoss('l1', norm_patch_size=2)(3 * clean, clean, clean)
    # Twice too large in both; a deviation of 1 is taken for one of sqrt(1.01), one of 10 for sqrt(100.01).
    torch.testing.assert_close(loss, torch.tensor((2 / 1.01**0.5 + 20 / 100.01**0.5) / 2), rtol=1e-5, atol=0)


def test_patterns_leave_the_mean_of_patches_free_and_pixels_do_not():
    clean = two_patches()
    restored = clean + torch.tensor([1.0, 1.0, 7.0, 7.0])
    assert RestorationLoss('l1', norm_patch_size=2)(restored, clean, clean) < 1e-5
    loss = RestorationLoss('l1', norm_patch_size=2, pixel_weight=0.5)(restored, clean, clean)
    torch.testing.assert_close(loss, torch.tensor(0.5 * (1 + 7) / 2), rtol=1e-5, atol=0)


def test_flat_patches_do_not_outweigh_the_others():
    clean = torch.zeros(1, 3, 2, 2)
    restored = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).expand(1, 3, 2, 2)
    loss = RestorationLoss('l2', norm_patch_size=2)(restored, clean, clean)
    torch.testing.assert_close(loss, torch.tensor(1.0))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match='huber'):
        RestorationLoss('huber')
    with pytest.raises(ValueError, match='masked'):
        RestorationLoss(region='masked')
    with pytest.raises(ValueError, match=r'norm_patch_size 3 does not divide the image size \(4, 4\)'):
        RestorationLoss(norm_patch_size=3)(*[torch.zeros(1, 3, 4, 4)] * 3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(norm_patch_size=0), 'norm_patch_size must be a whole number of at least 1, not 0'),
        (dict(norm_patch_size=2.0), 'norm_patch_size must be a whole number of at least 1, not 2.0'),
        (dict(pixel_weight=0.5), 'pixel_weight=0.5 needs norm_patch_size'),
        (dict(norm_patch_size=2, pixel_weight=-3), 'pixel_weight must be a number of at least 0, not -3'),
        (dict(loss_weight=-1.0), 'loss_weight must be a number of at least 0, not -1.0'),
        (dict(loss_weight=float('nan')), 'loss_weight must be a number of at least 0, not nan'),
    ],
)
def test_options_that_would_change_nothing_or_fail_later(options, message):
    with pytest.raises(ValueError, match=message):
        RestorationLoss(**options)
