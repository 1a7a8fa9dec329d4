"""mmebm's configs by name, where mmengine looks for them."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.hub import get_config, get_model

from mmebm.config_files import config_folder, find_config

NAMES = [path.name for path in sorted(config_folder().glob('*.py'))]
NAMES += ['continued/ebm_vit-b-mae_in1k.py', 'peers/ebm_vit-w128_32px.py', 'ade20k/upernet_ebm-vit-t_shapes.py']


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def inherit(name, file='mine.py'):
    Path(file).write_text(f"_base_ = 'mmebm::{name}'\n")
    return Config.fromfile(file).to_dict()


@pytest.mark.parametrize('name', NAMES)
def test_inherited_by_name_as_by_path(name):
    """Scopes included: in the scope `mmebm`, mmpretrain's transforms would be unknown."""
    assert inherit(name) == Config.fromfile(config_folder() / name).to_dict()


def test_from_the_hub():
    expected = Config.fromfile(config_folder() / 'ebm_vit-t_folder.py').to_dict()
    for name in ('ebm_vit-t_folder.py', 'ebm_vit-t_folder', 'configs/ebm_vit-t_folder.py'):
        assert get_config(f'mmebm::{name}').to_dict() == expected


def test_parts_of_names():
    expected = inherit('ebm_vit-t_folder.py')
    assert inherit('ebm_vit-t_folder') == inherit('configs/ebm_vit-t_folder.py') == expected
    assert inherit('linear_ebm-vit-t_shapes') == inherit('linear/linear_ebm-vit-t_shapes.py')
    assert 'shared' in inherit('peers/_base_/shared_32px.py')
    assert find_config('configs/ebm_vit-b_in1k.py') == config_folder() / 'ebm_vit-b_in1k.py'


def test_values_of_the_base_can_be_read():
    Path('mine.py').write_text(
        "_base_ = 'mmebm::ebm-mask_vit-s_in1k.py'\n"
        "_base_.train_dataloader.dataset.pipeline[-2].corruption = dict(type='mmebm.Grayscale')\n"
        "model = dict(head=dict(kind='linear'))\n"
    )
    cfg = Config.fromfile('mine.py')
    assert cfg.train_dataloader.dataset.pipeline[3].corruption.type == 'mmebm.Grayscale'
    assert cfg.model.head == dict(type='mmebm.EnergyHead', in_channels=384, kind='linear')


def test_a_file_of_the_same_name_does_not_inherit_from_itself():
    assert inherit('ebm_vit-t_folder.py', file='ebm_vit-t_folder.py')['model']['head']['in_channels'] == 128


def test_an_unknown_name():
    with pytest.raises(FileNotFoundError, match=r'No config file "ebm_vit-t_foldr\.py".*Close names: ebm_vit-t_folder'):
        inherit('ebm_vit-t_foldr.py')
    with pytest.raises(FileNotFoundError, match=r'Close names: ebm_vit-t_folder\.py'):
        get_config('mmebm::ebm_vit-t_foldr.py')


def test_python_style_configs_are_told_how_to_inherit():
    base = 'from mmengine.config import read_base\n\nwith read_base():\n    from {} import *\n'
    for module in ('mmebm.configs.ebm_vit_t_folder', 'mmebm.configs'):
        Path('lazy.py').write_text(base.format(module))
        with pytest.raises(ConfigParsingError, match=rf"from {module} import.*_base_ = 'mmebm::NAME\.py'"):
            Config.fromfile('lazy.py')


def test_other_packages_are_found_as_before():
    Path('mine.py').write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    assert Config.fromfile('mine.py').model['_scope_'] == 'mmpretrain'
    assert get_config('mmpretrain::resnet/resnet18_8xb32_in1k.py').model.backbone.depth == 18


@pytest.mark.parametrize('name', ['ebm_vit-t_shapes.py', 'ebm-patches_vit-t_shapes-64px', 'linear_ebm-vit-t_shapes'])
def test_models_from_the_hub(name):
    model = get_model(f'mmebm::{name}')
    assert type(model).__name__ == Config.fromfile(find_config(name)).model.type.rpartition('.')[2]


def test_there_are_no_weights():
    with pytest.raises(AssertionError, match='Cannot find `Weights`'):
        get_config('mmebm::ebm_vit-t_shapes.py', pretrained=True)
