"""A linear map from a backbone's features to values on a finer or coarser grid."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmebm.option_check import check_whole_numbers


class GridProjection(nn.Sequential):
    """One linear layer from features (N, D, h, w) to values (N, C, H', W') on another grid over the same image.

    Each position predicts the values of the cells that lie within it; if the cells are larger, they are predicted from
    all positions within.

    Args:
        in_channels: Width D of the features.
        out_channels: Values C of a cell.
        stride: Side of a position of the features in pixels.
        out_stride: Side of a cell in pixels; it divides ``stride``, or the reverse.

    Raises:
        ValueError: Neither divides the other, or an argument is no whole number above 0.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, out_stride: int) -> None:
        check_whole_numbers('the head', in_channels=in_channels, stride=stride, token_stride=out_stride)
        if stride % out_stride == 0:
            ratio = stride // out_stride
            super().__init__(nn.Conv2d(in_channels, out_channels * ratio**2, 1), nn.PixelShuffle(ratio))
        elif out_stride % stride == 0:
            ratio = out_stride // stride
            super().__init__(nn.Conv2d(in_channels, out_channels, ratio, stride=ratio))
        else:
            raise ValueError(
                f'features with a stride of {stride} pixels cannot predict cells of {out_stride} pixels: one must '
                'divide the other'
            )


def last_map(features: Tensor | Sequence[Tensor]) -> Tensor:
    """The features (N, D, h, w) of a backbone's last stage.

    Raises:
        ValueError: They are no map.
    """
    last = features if isinstance(features, Tensor) else features[-1]
    if not (isinstance(last, Tensor) and last.dim() == 4):
        shape = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise ValueError(
            f'the head needs a map of features (N, D, h, w), not {shape}: in model.backbone, set '
            "out_type='featmap' for a ViT, gap_before_final_norm=False for a ConvNeXt"
        )
    return last


def check_width(head: nn.Module, features: Tensor) -> Tensor:
    """The features (N, D, h, w), if a head's projection is for as many channels.

    Raises:
        ValueError: It is not.
    """
    expected = head.projection[0].in_channels
    if features.shape[1] != expected:
        raise ValueError(
            f'{type(head).__name__} reads features of {expected} channels, but those of the backbone have '
            f'{features.shape[1]}: set model.head.in_channels to that'
        )
    return features


def check_size(head: nn.Module, output: Tensor, size: Sequence[int], what: str) -> None:
    """Check that a head's output (..., H', W') is of the size of what it predicts.

    Raises:
        ValueError: It is not; the message names the options to set.
    """
    if tuple(output.shape[-2:]) != tuple(size):
        raise ValueError(
            f'{type(head).__name__} predicts {tuple(output.shape[-2:])} {what}, but there are {tuple(size)}: set '
            "model.head.stride to that of the backbone's last features"
        )
