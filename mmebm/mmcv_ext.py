"""Stands in for ``mmcv._ext``, mmcv's compiled ops, with torchvision's kernels, on CPU and GPU.

Of mmcv's ops, the detectors of ``configs/coco`` need NMS and average-pooling RoIAlign alone, and torchvision, which is
installed anyway, has both. Every other op can be looked up, as the import of ``mmcv.ops`` does, and raises when it is
called. ``import mmebm`` puts this file in place (``mmebm.mmcv_ext_finder``), and only where mmcv has no compiled ops.

Signatures are those of mmcv's C++, outputs that are written in place included. What differs:

- float16 and bfloat16 are computed in float32 and rounded once; mmcv computes float16 in itself, and refuses bfloat16.
- NMS takes boxes and scores of any floating types; mmcv's takes float32. Of equal scores, the first comes first; mmcv
  leaves their order open.
- torch refuses RoIAlign's backward pass on GPUs under ``torch.use_deterministic_algorithms(True)``, since the order of
  its additions is not fixed. Neither is it in mmcv's, which torch does not know.
"""

from collections.abc import Callable
from importlib import metadata
from typing import NoReturn

import torch
import torchvision  # noqa: F401  (registers its operators)

AVERAGE = 1  # mmcv's pool_mode; 0 is the maximum


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Greedy non-maximum suppression: drops each box that overlaps a kept one of higher score by more than a threshold.

    Args:
        boxes: Tensor (N, 4) of x1, y1, x2, y2 in pixels.
        scores: Tensor (N,).
        iou_threshold: Largest intersection over union, in [0, 1], at which both boxes are kept.
        offset: 0, or 1 where x2 and y2 name the last pixel inside: width and height are then x2 - x1 + 1 and
            y2 - y1 + 1.

    Returns:
        Indices (M,) of the kept boxes, int64, by descending score.
    """
    # Half precision would lose pixels, and torchvision wants boxes and scores of one type.
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    if dtype == torch.float32:
        # torchvision compares in float64 on the CPU; mmcv, in float32: 1/7 is not more than 1/7.
        iou_threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign: the mean of a feature map in each cell of a grid over each region; fills ``output``.

    Args:
        input: Feature maps (B, C, H, W).
        rois: Regions (N, 5): index of the image, then x1, y1, x2, y2 in pixels of the image.
        output: Tensor (N, C, aligned_height, aligned_width), which is overwritten.
        argmax_y: Of max pooling; not read.
        argmax_x: Of max pooling; not read.
        aligned_height: Cells of the grid along y.
        aligned_width: Cells of the grid along x.
        spatial_scale: Size of the feature map divided by that of the image.
        sampling_ratio: Samples in a cell along each axis; 0 for one a pixel of the feature map, rounded up.
        pool_mode: 1, the mean.
        aligned: True where pixel i covers [i, i + 1]; False where it lies at i, and regions are at least one pixel
            wide and high.

    Raises:
        NotImplementedError: ``pool_mode`` is 0, the maximum.
    """
    _require_average(pool_mode)
    dtype = _working_dtype(input)
    grid = aligned_height, aligned_width
    pooled = torch.ops.torchvision.roi_align(
        input.to(dtype), rois.to(dtype), spatial_scale, *grid, sampling_ratio, aligned
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """The gradient of `roi_align_forward` with respect to its feature maps, added to ``grad_input`` (B, C, H, W).

    Args:
        grad_output: Gradient (N, C, aligned_height, aligned_width) of the output.
        rois: As in the forward pass, and so are all that follow.
        argmax_y: Not read.
        argmax_x: Not read.
        grad_input: Tensor (B, C, H, W), zeros as a rule.
        aligned_height: As in the forward pass.
        aligned_width: As in the forward pass.
        spatial_scale: As in the forward pass.
        sampling_ratio: As in the forward pass.
        pool_mode: As in the forward pass.
        aligned: As in the forward pass.

    Raises:
        NotImplementedError: ``pool_mode`` is 0, the maximum.
    """
    _require_average(pool_mode)
    dtype = _working_dtype(grad_output)
    grid = aligned_height, aligned_width
    grad_input += torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype), rois.to(dtype), spatial_scale, *grid, *grad_input.shape, sampling_ratio, aligned
    )


def get_compiler_version() -> str:
    """What mmcv reports of itself in its description of the environment."""
    return "none: mmebm's stand-in"


def get_compiling_cuda_version() -> str:
    """What mmcv reports of itself in its description of the environment."""
    return "none: mmebm's stand-in"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Any other op of mmcv's, which raises NotImplementedError when it is called."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(_how_to_get(name))

    missing.__name__ = missing.__qualname__ = name
    return missing


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise NotImplementedError(_how_to_get("roi_align with pool_mode='max'"))


def _working_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _how_to_get(op: str) -> str:
    try:
        pin = f'onedl-mmcv=={metadata.version("onedl-mmcv")}'
    except metadata.PackageNotFoundError:
        pin = 'onedl-mmcv'
    return (
        f"{op} is one of mmcv's compiled ops, which this mmcv does not have: pip builds it without them unless torch "
        'is in sight. mmebm stands in for nms and average-pooling roi_align alone. To compile all (8-13 minutes, with '
        "a C++ compiler and Python's headers; for the GPU with nvcc, and FORCE_CUDA=1 in front):\n"
        '  pip install "setuptools>=80,<81" wheel\n'
        f'  pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps {pin}'
    )
