import logging
import os
import shutil
import socket
import sysconfig
from functools import partial
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # of this process and of those that tests start, one core each

import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

import mmebm  # noqa: E402, F401  (before mmdet, which keeps the fallbacks for mmcv's ops that it is imported with)
from mmebm.upstream.yapf_cache import import_yapf  # noqa: E402

import_yapf()  # here, before pytest starts workers, one of which would read what another one writes

CANNOT_IMPORT = 'could not import'  # what pytest.importorskip says


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_in_ci((yield))


def fail_in_ci(report):
    """What is skipped for want of a package fails where CI is set: it would be missed unnoticed."""
    reason = str(report.longrepr)
    if report.skipped and CANNOT_IMPORT in reason and os.environ.get('CI'):
        report.outcome, report.longrepr = 'failed', f'{report.nodeid} would be skipped: {reason}'
    return report


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Pretraining configs live in mmpretrain's scope, which is global: set it for one test and put it back."""
    import mmpretrain.models  # noqa: F401  (fills its registries)

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module', autouse=True)
def mmpretrain_scope_of_module():
    """The same for what the fixtures of a module build: they run before that of the test."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """A runner reports its environment, for which it calls compilers, and formats its config by yapf three times.

    Both take longer than a small training.
    """
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
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


@pytest.fixture(scope='session')
def code_generation():
    """Skips where torch lacks what it generates code with on a CPU: a C++ compiler and the headers of Python."""
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        pytest.skip('there is no C++ compiler')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        pytest.skip('the headers of Python are missing')


@pytest.fixture
def free_port():
    """A TCP port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@pytest.fixture
def warnings_logged():
    """The WARNING records of mmengine's logger, which does not propagate to pytest's own handler."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
