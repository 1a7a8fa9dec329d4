import pytest
import torch

from mmebm.registry import HOOKS


@pytest.fixture
def precision_as_before():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(('options', 'expected'), [({}, 'high'), (dict(precision='highest'), 'highest')])
def test_precision_is_set_before_the_run(options, expected, precision_as_before):
    HOOKS.build(dict(type='mmebm.MatmulPrecisionHook', **options)).before_run(None)
    assert torch.get_float32_matmul_precision() == expected
    assert torch.backends.cudnn.allow_tf32 == (expected == 'high')
