"""Pretrained backbones on downstream tasks."""
