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


def test_patch_normalisation_weighs_an_error_by_the_patch_deviation():
    # Patches of 2 x 2 pixels: left values +-1 (deviation 1), right values +-10 (deviation 10).
    left, right = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([[10.0, -10.0], [-10.0, 10.0]])
    clean = torch.cat([left, right], dim=1).expand(1, 3, 2, 4)
    restored = clean + torch.tensor([1.0, 1.0, 10.0, 10.0])
    loss = RestorationLoss('l1', norm_patch_size=2)(restored, clean, clean)
    torch.testing.assert_close(loss, torch.tensor(1.0), rtol=1e-5, atol=0)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match='huber'):
        RestorationLoss('huber')
    with pytest.raises(ValueError, match='masked'):
        RestorationLoss(region='masked')
    with pytest.raises(ValueError, match=r'norm_patch_size 3 does not divide the image size \(4, 4\)'):
        RestorationLoss(norm_patch_size=3)(*[torch.zeros(1, 3, 4, 4)] * 3)
