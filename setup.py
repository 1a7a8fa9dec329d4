"""Packaging of mmebm: its requirements, its console commands, and the ``.mim`` folder that ``mim`` reads."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FILES = ('configs', 'tools', 'model-index.yml')

# CI tests one set of versions, the one in constraints.txt: onedl-mmengine 0.10.12, onedl-mmcv 2.3.6,
# onedl-mmpretrain 1.3.6, onedl-mmsegmentation 1.4.2, onedl-mmdetection 3.5.1, torch 2.11.0, torchvision 0.26.0,
# numpy 2.2.6; all tests on Python 3.11, the fast ones on 3.10 and 3.12. Once a week it tests the latest releases within
# the ranges below. Each upper end is the next release that may break. The lower ends of torch and torchvision, 2.6.0
# and 0.21.0, passed the tests of the core once by hand; CI does not test them.
# `import mmebm` refuses versions outside these ranges (mmebm/environment.py reads them from the installed metadata).
INSTALL_REQUIRES = [
    'torch>=2.6,<2.12',
    'torchvision>=0.21,<0.27',
    'onedl-mmengine>=0.10.12,<0.11',
    'onedl-mmcv>=2.3.6,<2.4',
    'onedl-mmpretrain>=1.3.6,<1.4',  # declares neither torch nor mmengine nor mmcv
    'numpy>=2.0,<3',
    'safetensors>=0.4',
    'scikit-learn>=1.5,<2',
    'scipy>=1.11,<2',
    'torchmetrics>=1.4,<2',
    'matplotlib>=3.8,<4',
    'rich>=13',
    'jinja2>=3,<4',
    'packaging',
    'filelock>=3.12',
]
EXTRAS_REQUIRE = {
    'seg': ['onedl-mmsegmentation>=1.4.2,<1.5', 'ftfy', 'regex'],
    'det': ['onedl-mmdetection>=3.5.1,<3.6'],  # without mmcv's compiled ops: see README, "Install"
    'timm': ['timm>=1.0,<2'],
    'hf': ['transformers>=4.53,<5'],  # the range of mmpretrain, whose import fails with 5 where pycocotools is
    'app': ['gradio>=6.17,<7'],
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.5,<10', 'mkdocstrings>=0.29,<2', 'mkdocstrings-python>=1.16,<3'],
    'benchmarks': ['pyaupro>=0.1.11,<0.2', 'cleanvision>=0.3.7,<0.4'],  # of detection
    'tables': ['pandas>=2.2,<4', 'pyarrow>=17'],
    # Without ranges, since they would bind at import.
    'dev': [
        *('pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'setuptools', 'wheel'),
        *('timm', 'transformers', 'onnx', 'onnxscript', 'onnxruntime', 'pandas', 'pyarrow', 'tensorboard', 'gradio'),
        *('pyaupro', 'cleanvision'),
    ],
}


class BuildPy(build_py):
    """Puts configs, tools and the model index under ``mmebm/.mim``, where ``mim`` and ``mmebm::`` look for them."""

    def run(self):
        """Builds the modules, then the ``.mim`` folder: copies in a wheel, links in an editable install."""
        super().run()
        mim = (ROOT if self.editable_mode else Path(self.build_lib)) / 'mmebm' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            if self.editable_mode:
                (mim / name).symlink_to(Path('..', '..', name))
            elif (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, mim / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(ROOT / name, mim / name)


def version() -> str:
    """The version in mmebm/__init__.py, read as text: importing it would need mmengine."""
    return re.search(r"__version__ = '(.+)'", (ROOT / 'mmebm' / '__init__.py').read_text())[1]


def long_description() -> str:
    """The README, for the package index."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


setup(
    name='mmebm',
    version=version(),
    description='Self-supervised pretraining by energy and restoration, on MMPretrain',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='mmebm contributors',
    keywords='self-supervised learning, energy-based models, computer vision, OpenMMLab, MMPretrain',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmebm', 'mmebm.*']),
    package_data={'mmebm': ['py.typed'], 'mmebm.report': ['page.*']},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={
        'console_scripts': [
            'mmebm-train = mmebm.commands.train:main',
            'mmebm-test = mmebm.commands.test:main',
            'mmebm-make-shapes = mmebm.commands.make_shapes:main',
            'mmebm-make-corrupted = mmebm.commands.make_corrupted:main',
            'mmebm-pack = mmebm.commands.pack:main',
            'mmebm-demo = mmebm.commands.demo:main',
            'mmebm-plan = mmebm.commands.plan:main',
            'mmebm-evaluate = mmebm.commands.evaluate:main',
            'mmebm-compare = mmebm.commands.compare:main',
            'mmebm-export = mmebm.commands.export:main',
            'mmebm-import = mmebm.commands.import_weights:main',
            'mmebm-import-dalle = mmebm.commands.import_dalle:main',
            'mmebm-replay = mmebm.commands.replay:main',
            'mmebm-app = mmebm.commands.app:main',
            'mmebm-report = mmebm.commands.report:main',
            'mmebm-pretrain = mmebm.commands.pretrain:main',
            'mmebm-restore = mmebm.commands.restore:main',
            'mmebm-energy = mmebm.commands.energy:main',
            'mmebm-embed = mmebm.commands.embed:main',
            'mmebm-browse-corruptions = mmebm.commands.browse_corruptions:main',
        ],
    },
    cmdclass={'build_py': BuildPy},
)
