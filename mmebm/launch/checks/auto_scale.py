"""Checks the scaling of learning rates by the command line's ``--auto-scale-lr``."""

from mmengine.config import Config


def check_auto_scale(cfg: Config) -> None:
    """Refuse ``--auto-scale-lr`` where mmengine would scale for a batch that is not the training's.

    Raises:
        ValueError: Batches are accumulated, which it does not count.
    """
    counts = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if (cfg.get('auto_scale_lr') or {}).get('enable') and counts > 1:
        raise ValueError(
            f'--auto-scale-lr leaves optim_wrapper.accumulative_counts={counts} out of the total batch, so that the '
            f'learning rate would be {counts} times too small; tools/plan.py CONFIG --gpus N --gpu KIND gives the '
            'right one, for --cfg-options optim_wrapper.optimizer.lr=...'
        )
