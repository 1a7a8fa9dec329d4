"""mmebm-demo: which configs it can show."""

import pytest
from mmengine.config import Config

from mmebm.commands.demo import main
from mmebm.config_files import find_config
from mmebm.experiments import demo


@pytest.fixture
def cfg():
    return Config.fromfile(find_config('ebm_vit-t_shapes'))


def test_a_config_without_a_test_set_a_corruption_is_refused_before_training(tmp_path, monkeypatch):
    def from_cfg(cfg):
        raise AssertionError('a runner was built')

    monkeypatch.setattr(demo.DemoRunner, 'from_cfg', from_cfg)
    message = r"-64px: .*needs ConcatDataset in test_dataloader\.dataset, which has 'mmebm\.Shapes'"
    with pytest.raises(ValueError, match=message):
        main(['--config', 'ebm-patches_vit-t_shapes-64px', '--work-dir', str(tmp_path / 'demo')])
    assert not (tmp_path / 'demo').exists()


def test_the_default_config_has_what_is_shown(cfg):
    demo.check_config(cfg, 'ebm_vit-t_shapes')
    cfg.test_evaluator.append(dict(type='Accuracy'))
    demo.check_config(cfg, 'with more than that')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(test_dataloader=None), 'needs ConcatDataset in test_dataloader.dataset, which has nothing'),
        (
            dict(test_evaluator=dict(type='mmebm.RestorationMetric')),
            "needs EnergyMetric in test_evaluator, which has 'mmebm.RestorationMetric'",
        ),
        (dict(custom_hooks=[]), 'needs FrozenFeatureHook in custom_hooks, which has nothing'),
    ],
)
def test_what_a_config_lacks_is_named(cfg, change, message):
    cfg.update(change)
    with pytest.raises(ValueError, match=f'--config mine.py: .*{message}.*ebm_vit-t_shapes'):
        demo.check_config(cfg, 'mine.py')
