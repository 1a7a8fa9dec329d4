"""Writes into every checkpoint on which images, for how long, and by which code it was trained."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.provenance import KEY, commit, describe_data, versions
from mmebm.registry import HOOKS


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Adds ``mmebm`` to the metadata of checkpoints; ``Restorer.provenance`` and exports hold it too.

    Its keys: ``dataset``, ``data``, ``images`` and ``files_sha256`` of the training images (see
    ``mmebm.provenance.describe_data``), ``epochs`` and ``iterations`` finished, ``seed``, ``commit`` and ``versions``.
    """

    def __init__(self) -> None:
        self.constant: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add it; files are listed once, before the first checkpoint."""
        if self.constant is None:
            data = describe_data(runner.train_dataloader.dataset)
            self.constant = data | dict(seed=runner.seed, commit=commit(), versions=versions())
        meta = checkpoint['meta']
        meta[KEY] = self.constant | dict(epochs=meta.get('epoch'), iterations=meta.get('iter'))
