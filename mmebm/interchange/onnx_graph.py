"""Export to ONNX (https://onnx.ai)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mmebm.interchange.library import require
from mmebm.interchange.source import Source, as_tokens

GRAPH = 'backbone.onnx'
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')


class LastFeatures(nn.Module):
    """A backbone that returns only its last features."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """The last features of normalised images (N, C, H, W)."""
        return self.backbone(images)[-1]


class Onnx:
    """The graph of the backbone, from ``images`` (N, C, H, W) of one size to ``features``."""

    def write(self, source: Source, folder: Path) -> None:
        """Write the graph.

        Raises:
            ImportError: A required package is not installed.
        """
        require('onnx', NEEDED)  # onnxruntime to verify
        images = torch.zeros(2, source.in_channels, *source.image_size)  # a batch of 1 would be treated as fixed
        torch.onnx.export(
            LastFeatures(source.resized).eval(),
            (images,),
            folder / GRAPH,
            input_names=['images'],
            output_names=['features'],
            dynamic_shapes=({0: torch.export.Dim('batch')},),
            dynamo=True,
            external_data=False,
        )

    def features(self, source: Source, folder: Path, images: Tensor) -> Tensor:
        """The last features (N, L, D), computed by onnxruntime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / GRAPH, providers=['CPUExecutionProvider'])
        (features,) = session.run(['features'], dict(images=images.numpy()))
        return as_tokens(torch.from_numpy(features))
