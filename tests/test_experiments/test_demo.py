"""mmebm-demo: which configs it can show."""

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmebm.commands.demo import main
from mmebm.config_files import find_config
from mmebm.experiments.demos import demo, demo_runner


@pytest.fixture
def cfg():
    return Config.fromfile(find_config('ebm_vit-t_shapes'))


def test_a_config_without_a_test_set_a_corruption_is_refused_before_training(tmp_path, monkeypatch, capsys):
    def from_cfg(cfg):
        raise AssertionError('a runner was built')

    monkeypatch.setattr(demo_runner.DemoRunner, 'from_cfg', from_cfg)
    message = "-64px: the demo needs ConcatDataset in test_dataloader.dataset, which has 'mmebm.Shapes'"
    with pytest.raises(SystemExit):
        main(['--config', 'ebm-patches_vit-t_shapes-64px', '--work-dir', str(tmp_path / 'demo')])
    assert message in capsys.readouterr().err
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


@pytest.mark.parametrize('is_terminal', [True, False])
def test_on_a_terminal_the_log_goes_to_its_file(is_terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('sys.stdout.isatty', lambda: is_terminal)
    runner, file, name = object.__new__(demo_runner.DemoRunner), tmp_path / 'a.log', f'demo-{is_terminal}'
    runner._experiment_name = name
    logger = runner.build_logger(log_file=str(file))
    logger.info('the environment')
    logger.error('what went wrong')
    MMLogger._instance_dict.pop(name)
    assert 'the environment' in file.read_text() and 'what went wrong' in file.read_text()
    shown = capsys.readouterr().out
    assert 'what went wrong' in shown
    assert ('the environment' in shown) != is_terminal
