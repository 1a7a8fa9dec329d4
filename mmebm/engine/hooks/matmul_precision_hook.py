"""The precision of float32 matrix products, such as TF32."""

from typing import Literal

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.registry import HOOKS


@HOOKS.register_module()
class MatmulPrecisionHook(Hook):
    """Set the precision of float32 matrix products and convolutions for the whole run.

    Args:
        precision: As in ``torch.set_float32_matmul_precision``: ``highest`` is float32, ``high`` is TF32 where the GPU
            has it.
    """

    priority = 'VERY_HIGH'

    def __init__(self, precision: Literal['highest', 'high', 'medium'] = 'high') -> None:
        self.precision = precision

    def before_run(self, runner: Runner) -> None:
        """Set the precision before anything is computed or compiled."""
        torch.set_float32_matmul_precision(self.precision)
        torch.backends.cudnn.allow_tf32 = self.precision != 'highest'
