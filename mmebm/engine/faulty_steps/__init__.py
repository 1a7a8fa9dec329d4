"""Parts of skipping training steps that would spoil the weights: how they are found, captured, run again, undone."""
