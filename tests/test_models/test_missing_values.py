"""What is restored beside pixels, packed with them."""

import torch

from mmebm.models.selfsup.missing_values import MissingValues, energies_of


def test_images_and_two_kinds_of_missing_values():
    missing, images = MissingValues([(4, 16), (2, 5)]), torch.randn(3, 3, 8, 8)
    x = missing.start(images)
    assert x.shape == (3, 3 * 64 + 4 * 16 + 2 * 5)
    x[:, -5:] = 7.0
    x[:, 192:208] = 5.0
    found, (first, second) = missing.unpack(x, images.shape)
    assert torch.equal(found, images)
    assert first.sum(dim=2).tolist() == [[80.0, 0.0, 0.0, 0.0]] * 3
    assert second.sum(dim=2).tolist() == [[0.0, 35.0]] * 3
    sizes = missing.step_sizes(x, torch.tensor([3.0]))
    assert sizes.shape == (1, x.shape[1])
    assert (sizes[0, :192] == 3).all() and (sizes[0, 192:] == 1).all()
    assert missing.number == 6


def test_images_alone_stay_images():
    missing, images, step_size = MissingValues([]), torch.randn(3, 3, 8, 8), torch.tensor([3.0])
    assert missing.start(images) is images
    assert missing.unpack(images, images.shape) == (images, [])
    assert missing.step_sizes(images, step_size) is step_size


def test_energies_in_closed_form():
    values, predicted = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 2.0], [5.0, 5.0]]])
    (found,) = energies_of([values], [predicted])
    assert found.tolist() == [[12.5 - 11.0, 0.0]]
