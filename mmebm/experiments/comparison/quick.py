"""A comparison that is made as short as it can be: to see that all runs, not to compare."""

from mmengine.config import Config

from mmebm.experiments.comparison.budget import set_epochs
from mmebm.planning.config_facts import step_options

# In place of the defaults of a comparison.
DEFAULTS = dict(budget='epochs=1', seeds=1, points=1, work_dir='work_dirs/compare_quick')
MAX_IMAGES = 1000
FINETUNING_EPOCHS = 2


def shorten(cfg: Config, is_finetuning: bool, num_images: int) -> None:
    """Leave out what takes long in a config, in place: compiling, and most epochs of fine-tuning.

    Args:
        cfg: The config of a method, of the tokenizer or of fine-tuning.
        is_finetuning: Whether it is the last; the budget says how long the others train.
        num_images: Of the training set.
    """
    if step_options(cfg).get('compile'):
        cfg.model.training_step.compile = False
    if is_finetuning:
        set_epochs(cfg, FINETUNING_EPOCHS, num_images // cfg.train_dataloader.batch_size)
        cfg.train_cfg.val_interval = FINETUNING_EPOCHS
