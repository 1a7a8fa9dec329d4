import pytest
import torch

from mmebm.models.necks.simple_feature_pyramid import SimpleFeaturePyramid


@pytest.mark.parametrize('size', [(8, 8), (6, 10)])
def test_shapes_at_every_stride(size):
    outputs = SimpleFeaturePyramid(16, out_channels=12)((torch.randn(2, 16, *size),))
    height, width = size
    expected = [(2, 12, int(height * scale), int(width * scale)) for scale in (4, 2, 1, 0.5)]
    assert [tuple(x.shape) for x in outputs[:4]] == expected
    assert outputs[4].equal(outputs[3][:, :, ::2, ::2])


def test_reads_the_last_map_alone():
    neck, last = SimpleFeaturePyramid(16, out_channels=12), torch.randn(1, 16, 4, 4)
    for once, again in zip(neck((last,)), neck((torch.randn(1, 16, 4, 4), last)), strict=True):
        assert once.equal(again)


def test_outputs_are_normalized_over_their_channels():
    for x in SimpleFeaturePyramid(16, out_channels=12)((torch.randn(2, 16, 4, 4),)):
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.var(1, unbiased=False), torch.ones_like(x[:, 0]), atol=1e-3, rtol=0)


def test_every_parameter_gets_a_gradient():
    neck = SimpleFeaturePyramid(16, out_channels=12)
    outputs = neck((torch.randn(2, 16, 4, 4),))
    sum((x * torch.randn_like(x)).sum() for x in outputs[:4]).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []
