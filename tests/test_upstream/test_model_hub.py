"""mmebm's models in mmpretrain's list."""

import importlib

import pytest
from mmengine.fileio import load
from mmpretrain import get_model, list_models

import mmebm
from mmebm.config_files import config_folder


def test_every_model_of_the_metafile_is_listed():
    names = sorted(model['Name'] for model in load(config_folder() / 'metafile.yml')['Models'])
    assert 'ebm_vit-t_shapes' in names
    assert set(names) <= set(list_models())
    assert [name for name in list_models('*ebm*') if 'ebm' in name] == [name for name in names if 'ebm' in name]


@pytest.mark.parametrize(
    'name, kind',
    [
        ('ebm_vit-t_shapes', 'EBMAlgorithm'),
        ('EBM-patches_vit-t_shapes-64px', 'PatchEBM'),
        ('cim-respix_vit-t_shapes', 'CIM'),
    ],
)
def test_models_by_name(name, kind):
    model = get_model(name)
    assert type(model).__name__ == kind
    assert model._metainfo.name.lower() == name.lower()


def test_importing_anew_changes_nothing():
    before = list_models()
    importlib.reload(mmebm)
    assert list_models() == before
