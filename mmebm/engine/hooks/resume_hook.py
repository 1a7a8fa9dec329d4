"""Resumes a training under the present settings, or says why that cannot be."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner, find_latest_checkpoint

from mmebm.checkpoint import check_fit
from mmebm.engine.faulty_steps.rollback import forget_scale, scale_of_rates, scale_rates
from mmebm.engine.resuming.position import check_length, own_paths, to_present_epochs
from mmebm.engine.resuming.schedule import hyperparameters, replay, same_optimizer, same_schedule
from mmebm.engine.resuming.settings import changed_settings, check_complete
from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
class ResumeHook(Hook):
    """Lets a resumed training follow the present config, where mmengine would follow the checkpoint without a word.

    mmengine restores the optimiser's hyper-parameters and the schedule. If the present config has others, they are
    used, and the schedule is where it would be if the training had had these settings from its start, at the lower
    learning rates to which ``NonFiniteLossHook`` has rolled back, unless the config has another one now.

    Epochs that are done count as done, whatever the batch size, the number of processes or of images; within an epoch,
    a training with ``EpochSeedHook`` continues, and another begins it again. Settings that a resumed training cannot
    change are rejected.

    ``tools/train.py --resume`` adds this hook. It has no effect on a training that is not resumed, and on one with
    several optimisers it only makes the checks.

    Raises:
        ValueError: (when the checkpoint is read) It lacks what a training resumes from, is of another architecture or
            optimiser, has done more than the present length, or was trained with other settings that cannot change.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._hyperparameters: list[dict[str, Any]] | None = None
        self._has_new_rate = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint, and make it one of the present run before mmengine resumes from it."""
        if not runner._resume:
            return
        path = str(runner._load_from or find_latest_checkpoint(runner.work_dir))
        check_complete(checkpoint, path)
        changed = changed_settings(checkpoint, runner.cfg, path)
        model = unwrapped(runner.model)
        check_fit(checkpoint['state_dict'], model.state_dict(), path, type(model).__name__)
        own_paths(checkpoint, runner)
        interrupted = False
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            check_length(checkpoint['meta']['iter'], 'max_iters', runner, path)
        else:
            interrupted = to_present_epochs(checkpoint, runner, path)
        if changed:
            listed = '; '.join(f'{key}: {old!r} -> {new!r}' for key, (old, new) in changed.items())
            runner.logger.warning(f'Resumed from {path} with other settings, which hold from here on: {listed}')
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            return
        if any(key.startswith('optim_wrapper.loss_scale') for key in changed):
            checkpoint['optimizer'].pop('loss_scaler', None)  # of AmpOptimWrapper
        keeps = same_optimizer(checkpoint, runner, path)
        if same_schedule(checkpoint, runner, path) and keeps and not interrupted:
            return
        for scheduler in runner.param_schedulers or []:
            if getattr(scheduler, 'need_val_args', False):
                runner.logger.warning(
                    f'{type(scheduler).__name__} begins anew, since the settings or the position in the epoch are '
                    'others: the learning rate is the first one, and what past validations found is forgotten'
                )
        self._hyperparameters = hyperparameters(runner)
        self._has_new_rate = 'optim_wrapper.optimizer.lr' in changed
        checkpoint.pop('param_schedulers', None)  # mmengine would restore it

    def before_train(self, runner: Runner) -> None:
        """Put back the present hyper-parameters, and bring the schedule to where the training is."""
        if self._hyperparameters is None:
            return
        for group, present in zip(runner.optim_wrapper.param_groups, self._hyperparameters, strict=True):
            group.update(present)
        if self._has_new_rate:
            forget_scale(runner)
        scale_rates(runner, scale_of_rates(runner))  # NonFiniteLossHook may have lowered them
        replay(runner)
        rate = max(runner.optim_wrapper.get_lr()['lr'])  # not base_lr, which mmengine leaves out of --auto-scale-lr
        runner.logger.info(f'The schedule is that of the present settings, and resumes with learning rate {rate:.4g}')
