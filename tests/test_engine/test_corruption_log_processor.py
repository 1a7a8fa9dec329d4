"""The log of an evaluation as a table with a column per corruption."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import LOG_PROCESSORS

from mmebm.config_files import find_config

METRICS = {
    'val/restoration/mask/psnr_restored_db': 22.04,
    'val/restoration/sort/psnr_restored_db': 21.4,
    'val/energy/mask/auroc': float('nan'),
    'val/frozen/knn_top1': 28.4,
}


def log(metrics, **options):
    """What is logged of an evaluation's metrics: values and text."""
    hub = MessageHub.get_instance(f'log-{len(MessageHub._instance_dict)}')
    for name, value in metrics.items():
        hub.update_scalar(name, value)
    runner = SimpleNamespace(message_hub=hub, val_dataloader=range(2), _train_loop=None, epoch=1)
    runner.val_loop = SimpleNamespace(dataloader=range(2))
    processor = LOG_PROCESSORS.build(dict(type='mmebm.CorruptionLogProcessor', **options))
    processor._get_epoch = lambda runner, mode: 1
    return processor.get_log_after_epoch(runner, 2, 'val')


@pytest.mark.parametrize('with_hierarchy', [False, True])
def test_corruptions_are_columns_and_the_rest_a_line(with_hierarchy):
    tag, text = log(METRICS, log_with_hierarchy=with_hierarchy)
    first, columns, rule, *rows = text.splitlines()
    assert first == 'Epoch(val) [1][2/2]  frozen/knn_top1: 28.4000'
    assert columns.split() == ['mask', 'sort'] and set(rule) == {'─'}
    assert [row.split() for row in rows] == [
        ['restoration/psnr_restored_db', '22.04', '21.4'],
        ['energy/auroc', 'nan', '-'],
    ]
    prefix = 'val/' if with_hierarchy else ''
    assert tag[f'{prefix}restoration/sort/psnr_restored_db'] == 21.4  # as ever, for JSON and plots
    assert len(tag) == len(METRICS)


def test_a_corruption_may_have_a_slash_in_its_name():
    _, text = log({'val/restoration/jpeg/50/psnr_restored_db': 22.04})
    _, columns, _, row = text.splitlines()
    assert (columns.split(), row.split()) == (['jpeg/50'], ['restoration/psnr_restored_db', '22.04'])


def test_other_metrics_are_logged_as_usual():
    _, text = log({'val/accuracy/top1': 50.0, 'val/mIoU': 31.0})
    assert text.split('  ', 1)[1].strip() == 'accuracy/top1: 50.0000  mIoU: 31.0000'


def test_more_corruptions_than_a_terminal_is_wide_lose_nothing():
    names = [f'corruption_{i:02}' for i in range(30)]
    _, text = log({f'val/energy/{name}/auroc': 0.5 for name in names})
    assert text.splitlines()[1].split() == names


@pytest.mark.parametrize('name', ['ebm_vit-t_shapes', 'ebm_vit-t_folder', 'ebm_vit-t_cifar10', 'ebm-mix_vit-b_in1k'])
def test_configs_log_tables(name):
    assert Config.fromfile(find_config(name)).log_processor.type == 'mmebm.CorruptionLogProcessor'
