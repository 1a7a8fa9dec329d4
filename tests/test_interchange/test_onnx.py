"""The graph that ``--to onnx`` writes, run by onnxruntime on its own."""

import pytest
import torch
from randomized import BACKBONES, save_checkpoint

from mmebm.interchange import export

onnxruntime = pytest.importorskip('onnxruntime')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['VisionTransformer', 'ConvNeXt'])
def test_the_graph_computes_the_features_of_any_batch(tmp_path, kind):
    backbone = next(backbone for backbone in BACKBONES.values() if backbone['type'] == kind)
    model = save_checkpoint(tmp_path / 'epoch_1.pth', backbone)
    model.eval()  # which gives nothing back, in mmpretrain's backbones
    size = 64 if 'img_size' not in backbone else None
    result = export(tmp_path / 'epoch_1.pth', 'onnx', tmp_path / 'onnx', image_size=size)
    assert result.difference < 1e-4 and 0.5 < result.magnitude < 20
    session = onnxruntime.InferenceSession(tmp_path / 'onnx' / 'backbone.onnx', providers=['CPUExecutionProvider'])
    for num_images in (1, 3):  # of the batches that a graph is traced with, neither
        images = torch.randn(num_images, 3, *result.image_size)
        (features,) = session.run(['features'], dict(images=images.numpy()))
        with torch.no_grad():
            expected = model(images)[-1]
        torch.testing.assert_close(torch.from_numpy(features), expected, rtol=1e-4, atol=1e-4)
