"""Back to the last checkpoint, with a lower learning rate."""

from mmengine.dist import broadcast_object_list
from mmengine.runner import Runner

from mmebm.model_building import unwrapped
from mmebm.unpickling import unpickle

# In the message hub, which checkpoints hold.
SCALE = 'scale_of_rates'


def last_checkpoint(runner: Runner) -> str | None:
    """The file of the last checkpoint of this training, which the first process knows; None if there is none."""
    path = [runner.message_hub.get_info('last_ckpt')]
    broadcast_object_list(path)
    return path[0]


def roll_back(runner: Runner, path: str, factor: float) -> None:
    """Take weights and optimiser from a checkpoint, in place; the place in the data and in the schedule stays.

    Args:
        runner: Of the training.
        path: The checkpoint.
        factor: What the present learning rates are multiplied by, from here on.
    """
    checkpoint = unpickle(path)
    unwrapped(runner.model).load_state_dict(checkpoint['state_dict'])
    wrapper = runner.optim_wrapper
    rates = [group['lr'] for group in wrapper.param_groups]
    wrapper.load_state_dict(checkpoint['optimizer'])
    for group, rate in zip(wrapper.param_groups, rates, strict=True):
        group['lr'] = rate
    scale_rates(runner, factor)
    runner.message_hub.update_info(SCALE, scale_of_rates(runner) * factor)


def scale_of_rates(runner: Runner) -> float:
    """The product of all factors so far, of the trainings too that this one resumes."""
    return runner.message_hub.get_info(SCALE, 1.0)


def forget_scale(runner: Runner) -> None:
    """Let the learning rates of the config count, which were set after the factors."""
    runner.message_hub.update_info(SCALE, 1.0)


def scale_rates(runner: Runner, factor: float) -> None:
    """Multiply the present learning rates, and all later ones of the schedule, in place."""
    for group in runner.optim_wrapper.param_groups:
        group['lr'] *= factor
        if 'initial_lr' in group:
            group['initial_lr'] *= factor
    for scheduler in runner.param_schedulers or []:
        if scheduler.param_name == 'lr' and hasattr(scheduler, 'base_values'):
            scheduler.base_values = [value * factor for value in scheduler.base_values]
