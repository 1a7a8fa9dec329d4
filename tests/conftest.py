import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Pretraining configs live in mmpretrain's scope, which is global: set it for one test and put it back."""
    import mmpretrain.models  # noqa: F401  (fills its registries)

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def unformatted(monkeypatch):
    """mmengine formats a run's config by yapf three times, which takes longer than a small training."""
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, False))


@pytest.fixture(scope='session', autouse=True)
def quiet():
    """mmengine logs every initialised weight at INFO."""
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    torch.set_num_threads(1)
