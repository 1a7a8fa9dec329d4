"""Parts of resuming a training: its settings, its position, its schedule."""
