"""Statistics of batch normalisation from clean images, for a network that trains on corrupted ones."""

from collections.abc import Iterator
from itertools import islice

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
class CleanBatchNormHook(Hook):
    """Replace the running statistics of batch normalisation by those of clean training images.

    Restoration passes corrupted images through the network, and so the running statistics become theirs. What is done
    with the network afterwards, from a linear probe to detection with frozen statistics, passes clean ones.

    Each process measures its own images, and the first one's statistics are saved.

    Args:
        interval: Epochs from one time to the next; the end of training is always one. The checkpoints of other epochs
            have the corrupted images' statistics.
        num_batches: Over how many batches, each with the same weight.

    Raises:
        ValueError: ``interval`` or ``num_batches`` is less than 1.
    """

    def __init__(self, interval: int = 10, num_batches: int = 100) -> None:
        if interval < 1 or num_batches < 1:
            raise ValueError(
                f'CleanBatchNormHook: interval={interval} and num_batches={num_batches} must both be 1 or more'
            )
        self.interval = interval
        self.num_batches = num_batches

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure the statistics anew, every ``interval`` epochs and after the last one, before a checkpoint."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            model = unwrapped(runner.model)
            update_bn(self._inputs(runner, model), model)

    def _inputs(self, runner: Runner, model: nn.Module) -> Iterator[list[list[Tensor]]]:
        for batch in islice(runner.train_dataloader, self.num_batches):
            # In a list, of which torch takes the first; the model's plain call is `extract_feat`, of clean images.
            yield [model.data_preprocessor(batch, True)['inputs']]
