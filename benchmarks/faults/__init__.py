"""What a training survives, tried by scripts; each writes its own row of ``results/faults.json``."""
