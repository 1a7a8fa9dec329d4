import pytest
from mmengine.config import Config, ConfigDict

from mmebm.config_files import find_config
from mmebm.planning.purpose import purpose


@pytest.mark.parametrize(
    ('name', 'start'),
    [
        ('ebm_vit-b_in1k', 'features'),
        ('ebm_vit-t_folder', 'features'),
        ('ebm-mask_vit-b_in1k', 'restoring whole images'),
        ('ebm_resnet50_in1k', 'restoring whole images'),
        ('peers/ebm-nce_vit-w128_32px', 'an energy'),
        ('peers/ebm-fast_vit-w128_32px', 'features; its energies were not measured'),
        ('ebm-patches_vit-b_in1k', 'features; it scores missing patches'),
        ('cim-revdet_vit-b_in1k', 'features; it has no energy'),
    ],
)
def test_what_a_config_is_for(name, start):
    assert purpose(Config.fromfile(find_config(name)).model).startswith(start)


def test_nothing_is_said_of_what_was_not_measured():
    assert purpose(ConfigDict(type='mmebm.MyEBM')) == 'not measured of a MyEBM'
