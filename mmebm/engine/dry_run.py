"""Runs in which there is nothing to measure."""

from mmengine.runner import Runner


def is_dry_run(runner: Runner) -> bool:
    """Whether a run has neither images nor a model.

    mmpretrain's ``vis_scheduler`` plots the learning rates of a config by running it, hooks included, over a list of
    numbers in place of a data loader, with a model that computes nothing.
    """
    loader = runner.train_dataloader
    return isinstance(loader, list) and all(isinstance(batch, int) for batch in loader[:1])
