import configparser
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.fileio import load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy so that no build output is left in it."""
    folder = tmp_path_factory.mktemp('packaging')
    source = folder / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'LICENSE', 'model-index.yml'):
        shutil.copy2(ROOT / name, source)
    for name in ('mmebm', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    command = [sys.executable, '-m', 'pip', 'wheel', '.', '--no-deps', '--no-build-isolation', '-w', str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(folder.glob('mmebm-*.whl'))) as archive:
        yield archive


def tracked(folder):
    """Files below a folder of the checkout, relative to its root."""
    paths = (path for path in (ROOT / folder).rglob('*') if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if not {'.mim', '__pycache__'} & set(path.parts)}


def test_wheel_holds_every_module(wheel):
    modules = {name for name in tracked('mmebm') if name.endswith('.py')}
    assert 'mmebm/commands/train.py' in modules
    assert modules - set(wheel.namelist()) == set()


def test_wheel_holds_the_report_s_page(wheel):
    parts = {'mmebm/report/page.html.j2', 'mmebm/report/page.css', 'mmebm/report/page.js'}
    assert parts - set(wheel.namelist()) == set()


def test_wheel_holds_what_mim_reads(wheel):
    wanted = {f'mmebm/.mim/{name}' for name in tracked('configs') | tracked('tools') | {'model-index.yml'}}
    assert 'mmebm/.mim/tools/train.py' in wanted
    assert wanted - set(wheel.namelist()) == set()


def test_wheel_names_the_commands_and_the_licence(wheel):
    names = {Path(name).name: name for name in wheel.namelist() if '.dist-info/' in name}
    assert 'LICENSE' in names
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(names['entry_points.txt']).decode())
    assert dict(entry_points['console_scripts']) == {
        'mmebm-train': 'mmebm.commands.train:main',
        'mmebm-test': 'mmebm.commands.test:main',
        'mmebm-make-shapes': 'mmebm.commands.make_shapes:main',
        'mmebm-make-corrupted': 'mmebm.commands.make_corrupted:main',
        'mmebm-pack': 'mmebm.commands.pack:main',
        'mmebm-plan': 'mmebm.commands.plan:main',
        'mmebm-evaluate': 'mmebm.commands.evaluate:main',
        'mmebm-compare': 'mmebm.commands.compare:main',
        'mmebm-export': 'mmebm.commands.export:main',
        'mmebm-import': 'mmebm.commands.import_weights:main',
        'mmebm-import-dalle': 'mmebm.commands.import_dalle:main',
        'mmebm-replay': 'mmebm.commands.replay:main',
        'mmebm-pretrain': 'mmebm.commands.pretrain:main',
        'mmebm-restore': 'mmebm.commands.restore:main',
        'mmebm-energy': 'mmebm.commands.energy:main',
        'mmebm-embed': 'mmebm.commands.embed:main',
        'mmebm-browse-corruptions': 'mmebm.commands.browse_corruptions:main',
        'mmebm-demo': 'mmebm.commands.demo:main',
        'mmebm-app': 'mmebm.commands.app:main',
        'mmebm-report': 'mmebm.commands.report:main',
    }
    for module in (target.partition(':')[0] for target in entry_points['console_scripts'].values()):
        assert f'{module.replace(".", "/")}.py' in wheel.namelist()


# What the documentation promises of an installed package, in a process that sees no checkout.
INSTALLED = """
import json
from pathlib import Path

import numpy as np

import mmebm
from mmengine.config import Config
from mmengine.hub import get_config
from mmpretrain import FeatureExtractor, get_model, list_models

Path('mine.py').write_text("_base_ = 'mmebm::ebm_vit-t_folder.py'")
inherited = Config.fromfile('mine.py')
print('RESULT', json.dumps(dict(
    package=str(Path(mmebm.__file__).parent),
    inherited=inherited.model.type,
    hub=get_config('mmebm::ebm_vit-t_folder.py').to_dict() == inherited.to_dict(),
    downstream=get_config('mmebm::finetune/finetune_ebm-vit-b_in1k.py').model.type,
    listed='ebm_vit-t_folder' in list_models('*ebm*'),
    model=type(get_model('ebm_vit-t_shapes')).__name__,
    features=[*FeatureExtractor('ebm_vit-t_shapes', device='cpu')(np.zeros((32, 32, 3), np.uint8))[0][-1].shape],
)))
"""


@pytest.fixture(scope='module')
def run_installed(wheel, tmp_path_factory):
    """Runs code in a fresh process and an empty folder, with the wheel's files in front of this checkout's."""
    site, folder = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('elsewhere')
    wheel.extractall(site)

    def run(code):
        environment = os.environ | dict(PYTHONPATH=str(site), OMP_NUM_THREADS='1')
        command = [sys.executable, '-c', code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = (line for line in done.stdout.splitlines() if line.startswith('RESULT '))
        return json.loads(line.removeprefix('RESULT '))

    run.site = site
    return run


def test_configs_and_models_are_found_by_name(run_installed):
    assert run_installed(INSTALLED) == dict(
        package=str(run_installed.site / 'mmebm'),
        inherited='mmebm.EBMAlgorithm',
        hub=True,
        downstream='ImageClassifier',
        listed=True,
        model='EBMAlgorithm',
        features=[65, 64],  # a class token and 8 x 8 patches
    )


def test_model_index_names_existing_configs_and_every_pretraining_config():
    imported = load(ROOT / 'model-index.yml')['Import']
    models = [model for path in imported for model in load(ROOT / path)['Models']]
    listed = {model['Config'] for model in models}
    assert {path for path in listed if not (ROOT / path).is_file()} == set()
    assert {f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')} - listed == set()
    assert [model['Name'] for model in models] == [Path(model['Config']).stem for model in models]


def test_constraints_lie_within_the_ranges_of_setup(wheel):
    from packaging.requirements import Requirement

    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    pins = {pin.name: pin for pin in map(Requirement, (line for line in lines if line and not line.startswith('#')))}
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))).decode()
    fields = (line.partition(': ') for line in metadata.splitlines() if line.startswith('Requires-Dist'))
    required = [Requirement(value) for _, _, value in fields]
    assert {requirement.name for requirement in required} - pins.keys() == set()
    for requirement in required:
        (pin,) = pins[requirement.name].specifier
        assert requirement.specifier.contains(pin.version), f'{requirement} does not allow {pin.version}'
