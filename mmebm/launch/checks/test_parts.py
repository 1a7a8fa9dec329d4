"""Checks that a config says what a test is."""

from mmengine.config import Config

PARTS = ('test_dataloader', 'test_cfg', 'test_evaluator')


def check_test_parts(cfg: Config) -> None:
    """Check that a config has what mmengine tests by; raises ValueError if it has not."""
    missing = [part for part in PARTS if cfg.get(part) is None]
    if missing:
        raise ValueError(
            f'{cfg.filename} has no test, since {", ".join(missing)} is missing or None: set all of {", ".join(PARTS)} '
            'there, or name another config'
        )
