import logging
from functools import partial

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

import mmebm  # noqa: F401  (before mmdet, which keeps the fallbacks for mmcv's ops that it is imported with)


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


@pytest.fixture
def without_code_generation(monkeypatch):
    """The compiler's tracing and differentiation, but not its code generation, which takes minutes."""
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='aot_eager'))
