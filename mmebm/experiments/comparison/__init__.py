"""Pretraining methods side by side, on equal terms."""
