"""How a training step is computed: eagerly or compiled, at once or in parts, fast or in little memory."""

from mmebm.training_step.parts import trainable
from mmebm.training_step.step import TrainingStep

__all__ = ['TrainingStep', 'trainable']
