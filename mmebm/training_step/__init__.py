"""How a training step is computed: eager or compiled, whole or in micro-batches, fast or with little memory."""

from mmebm.training_step.parts import trainable
from mmebm.training_step.step import TrainingStep

__all__ = ['TrainingStep', 'trainable']
