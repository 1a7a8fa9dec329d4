"""Checks that a config says what a test is."""

from mmengine.config import Config


def check_test_parts(cfg: Config) -> None:
    """Check that a config has data to test on; raises ValueError if it has not."""
    if cfg.get('test_dataloader') is None:
        raise ValueError(
            f'{cfg.filename} has no test_dataloader, so there is nothing to test on: set test_dataloader, test_cfg and '
            'test_evaluator there, or name another config'
        )
