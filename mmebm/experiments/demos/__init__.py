"""What ``make demo`` and ``make cim`` run."""
