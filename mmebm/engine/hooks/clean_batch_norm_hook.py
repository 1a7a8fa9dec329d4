"""Batch normalisation statistics of clean images, for networks that are trained on corrupted ones."""

from collections.abc import Iterator
from itertools import islice

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.model_building import unwrapped
from mmebm.option_check import check_whole_numbers
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class CleanBatchNormHook(Hook):
    """Replace the running statistics of batch normalisation by those of clean training images.

    Restoration passes corrupted images through the network, so the running statistics are theirs. Later uses of the
    network, from a linear probe to detection with frozen statistics, pass clean images.

    Each process measures its own images; the statistics of the first process are saved.

    Args:
        interval: Epochs between two measurements; the last epoch is always measured. The checkpoints of other epochs
            hold the statistics of corrupted images.
        num_batches: Number of batches to average over, with equal weights.

    Raises:
        ValueError: ``interval`` or ``num_batches`` is less than 1.
    """

    def __init__(self, interval: int = 10, num_batches: int = 100) -> None:
        check_whole_numbers('CleanBatchNormHook', interval=interval, num_batches=num_batches)
        self.interval = interval
        self.num_batches = num_batches

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure the statistics every ``interval`` epochs and after the last one, before a checkpoint is saved."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            model = unwrapped(runner.model)
            before = {m: [b.clone() for b in m.buffers()] for m in model.modules() if isinstance(m, _BatchNorm)}
            update_bn(self._inputs(runner, model), model)
            for module, values in before.items():
                if not module.num_batches_tracked:  # frozen, or of a part that features do not need
                    for buffer, value in zip(module.buffers(), values, strict=True):
                        buffer.copy_(value)

    def _inputs(self, runner: Runner, model: nn.Module) -> Iterator[list[list[Tensor]]]:
        for batch in islice(runner.train_dataloader, self.num_batches):
            # In a list, of which torch takes the first; calling the model is `extract_feat`, of the clean images.
            yield [model.data_preprocessor(batch, True)['inputs']]
