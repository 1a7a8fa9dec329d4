"""What the repository states about itself, its workflows and its style."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools  # noqa: F401  (brings distutils on Python 3.12)
import yaml
from packaging.specifiers import SpecifierSet

import mmebm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
YAML_FILES = [
    ROOT / '.pre-commit-config.yaml',
    ROOT / 'CITATION.cff',
    ROOT / 'model-index.yml',
    *sorted((ROOT / '.github').rglob('*.yml')),
]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding='utf-8'))


def jobs():
    """All jobs of all workflows, by workflow and name."""
    return {(path.name, name): job for path in WORKFLOWS for name, job in read(path)['jobs'].items()}


def commands():
    """The shell commands of all workflows."""
    return [step['run'] for job in jobs().values() for step in job['steps'] if 'run' in step]


def package():
    """What setup.py passes to setuptools; builds nothing."""
    from distutils.core import run_setup

    return run_setup(str(ROOT / 'setup.py'), stop_after='init')


@pytest.mark.parametrize('path', YAML_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_yaml_parses(path):
    assert isinstance(read(path), dict)


def test_workflows_are_found():
    names = {path.name for path in WORKFLOWS}
    assert {'lint.yml', 'test-fast.yml', 'test.yml', 'latest-deps.yml'} <= names


def test_citation_names_this_version():
    citation = read('CITATION.cff')
    assert citation['version'] == mmebm.__version__
    assert citation['license'] == package().metadata.license


def test_types_are_marked_and_packaged():
    assert (ROOT / 'mmebm' / 'py.typed').is_file()
    assert 'py.typed' in package().package_data['mmebm']


def test_make_targets_of_the_workflows_exist():
    called = {target for command in commands() for target in re.findall(r'\bmake ([\w-]+)', command)}
    assert {'lint', 'test', 'test-fast'} <= called
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    assert called - targets == set()


def test_workflows_run_on_supported_pythons():
    pythons = {
        version
        for job in jobs().values()
        for version in job.get('strategy', {}).get('matrix', {}).get('python-version', [])
        + [step['with']['python-version'] for step in job['steps'] if 'setup-python' in step.get('uses', '')]
        if '${{' not in version
    }
    assert pythons == {'3.10', '3.11', '3.12'}
    supported = SpecifierSet(str(package().python_requires))
    assert {version for version in pythons if version not in supported} == set()


def test_workflows_may_only_read():
    for path in WORKFLOWS:
        assert read(path)['permissions'] == {'contents': 'read'}, path.name


def test_hooks_have_the_pinned_ruff():
    """Another version may format the code in another way than `make lint` does."""
    hooks = [hook for repo in read('.pre-commit-config.yaml')['repos'] for hook in repo['hooks']]
    used = {line for hook in hooks for line in hook['additional_dependencies'] if line.startswith('ruff==')}
    pinned = (line for line in (ROOT / 'constraints.txt').read_text().splitlines() if line.startswith('ruff=='))
    assert used == {*pinned}


def test_modules_that_mypy_checks_exist():
    files = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['mypy']['files']
    assert 'mmebm/energy.py' in files
    assert [path for path in files if not (ROOT / path).exists()] == []


@pytest.mark.parametrize('command', ['check', 'format --check'])
def test_style(command):
    done = subprocess.run(
        [sys.executable, '-m', 'ruff', *command.split(), '.'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f'ruff {command}:\n{done.stdout}{done.stderr}'


PACKAGE_TEST = """
import pytest

def test_that_needs_a_package():
    pytest.importorskip('no_such_package')

def test_that_is_skipped_for_another_reason():
    pytest.skip('no GPU')
"""


@pytest.mark.slow
@pytest.mark.parametrize('ci', ['', 'true'])
def test_what_is_skipped_for_want_of_a_package_fails_in_ci(tmp_path, ci):
    (tmp_path / 'conftest.py').write_text((ROOT / 'tests' / 'conftest.py').read_text())
    (tmp_path / 'test_parts.py').write_text(PACKAGE_TEST)
    (tmp_path / 'test_file.py').write_text("import pytest\n\npytest.importorskip('no_such_package')\n")
    command = [sys.executable, '-m', 'pytest', str(tmp_path), '--rootdir', str(tmp_path)]
    command += ['-p', 'no:cacheprovider', '-p', 'no:warnings', '--continue-on-collection-errors']
    environment = {name: value for name, value in os.environ.items() if name != 'CI'} | (dict(CI=ci) if ci else {})
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (1 if ci else 0), done.stdout
    assert ('1 failed, 1 skipped, 1 error' if ci else '3 skipped') in done.stdout, done.stdout
