import subprocess
import sys

import pytest

from mmebm.environment import Distribution, EnvironmentMismatch, check_environment

MMEBM = Distribution(
    '0.1.0',
    (
        'torch<2.12,>=2.6',
        'onedl-mmcv<2.4,>=2.3.6',
        'onedl-mmdetection<3.6,>=3.5.1; extra == "det"',
        'pytest; extra == "dev"',
        'numpy>=99; python_version < "3"',
    ),
    ('det', 'dev'),
)
TORCHVISION = Distribution('0.26.0', ('numpy', 'torch ==2.11.0', 'gdown>=4.7.3; extra == "gdown"'))
GOOD = {
    'mmebm': MMEBM,
    'torch': Distribution('2.11.0'),
    'torchvision': TORCHVISION,
    'numpy': Distribution('2.2.6'),
    'onedl-mmengine': Distribution('0.10.12'),
    'onedl-mmcv': Distribution('2.3.6'),
    'onedl-mmdetection': Distribution('3.5.1'),
}


def message(**changes):
    """The message that the check gives once the changed distributions replace those of GOOD."""
    installed = GOOD | {name.replace('_', '-'): distribution for name, distribution in changes.items()}
    with pytest.raises(EnvironmentMismatch) as caught:
        check_environment(installed.get)
    return str(caught.value)


def test_a_matching_environment_passes():
    check_environment(GOOD.get)
    check_environment({}.get)


def test_local_version_and_prerelease_count_as_their_release():
    check_environment((GOOD | {'torch': Distribution('2.11.0+cu130')}).get)
    check_environment((GOOD | {'onedl-mmcv': Distribution('2.3.7rc1')}).get)


@pytest.mark.parametrize(
    ('original', 'continuation'),
    [
        ('mmengine', '"onedl-mmengine"'),
        ('mmcv', '"onedl-mmcv<2.4,>=2.3.6"'),
        ('mmcv-lite', '"onedl-mmcv<2.4,>=2.3.6"'),
        ('mmpretrain', '"onedl-mmpretrain"'),
        ('mmsegmentation', '"onedl-mmsegmentation"'),
        ('mmdet', '"onedl-mmdetection<3.6,>=3.5.1"'),
    ],
)
def test_an_openmmlab_original_is_named_with_its_replacement(original, continuation):
    with pytest.raises(EnvironmentMismatch) as caught:
        check_environment((GOOD | {original: Distribution('1.0')}).get)
    text = str(caught.value)
    assert f'pip uninstall -y {original}\n' in text
    assert text.endswith(f'pip install --force-reinstall --no-deps {continuation}')


def test_originals_are_found_without_their_continuation_and_all_named_at_once():
    with pytest.raises(EnvironmentMismatch, match='pip uninstall -y mmengine mmcv\n'):
        check_environment({'mmcv': Distribution('2.1.0'), 'mmengine': Distribution('0.10.0')}.get)


def test_versions_outside_the_range_are_named_with_the_range():
    text = message(torch=Distribution('2.5.1'), torchvision=None)
    assert 'torch 2.5.1 (tested: <2.12,>=2.6)' in text
    assert text.endswith('pip install "torch<2.12,>=2.6"')


def test_ranges_of_extras_hold_for_what_is_installed():
    text = message(onedl_mmdetection=Distribution('3.6.0'))
    assert text.endswith('pip install "onedl-mmdetection<3.6,>=3.5.1"')
    check_environment((GOOD | {'onedl-mmdetection': None}).get)


def test_a_plain_checkout_has_no_ranges():
    check_environment((GOOD | {'mmebm': None, 'onedl-mmcv': Distribution('9.9')}).get)


def test_torchvision_for_another_torch():
    text = message(torch=Distribution('2.10.0'))
    assert 'torchvision 0.26.0 is built for torch ==2.11.0, but torch 2.10.0 is installed' in text
    assert text.endswith('pip install --upgrade "torch==2.10.0" "torchvision"')


def test_cpu_torch_with_cuda_torchvision():
    text = message(torch=Distribution('2.11.0+cpu'))
    assert text.endswith('--no-deps torchvision==0.26.0 --index-url https://download.pytorch.org/whl/cpu')
    cpu_torchvision = Distribution('0.26.0+cpu', TORCHVISION.requires)
    check_environment((GOOD | {'torch': Distribution('2.11.0+cpu'), 'torchvision': cpu_torchvision}).get)


def test_import_of_mmebm_is_light_and_teaches_mmengine_the_scopes():
    code = (
        'import sys, mmengine.config.utils as u\n'
        "before = 'torch' in sys.modules\n"
        'import mmebm, mmebm.registry\n'
        "print(before == ('torch' in sys.modules), u.MODULE2PACKAGE['mmseg'], u.MODULE2PACKAGE['mmebm'])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['True', 'mmseg', 'mmebm']
