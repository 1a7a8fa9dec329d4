"""The demo of corrupted image modelling, with tiny data: from the tokenizer to picture and summary."""

import json

import pytest
from tiny import ROOT

from mmebm.commands.demo import main
from mmebm.experiments.demos import cim_demo
from mmebm.visualization.figures import plot_restorations

SMALL_TOKENIZER = f"""
_base_ = '{ROOT}/configs/tokenizers/vqvae_shapes.py'
model = dict(num_embed=32, width=8)
train_dataloader = dict(dataset=dict(size=64))
train_cfg = dict(max_epochs=1)
param_scheduler = None
"""
SMALL_CIM = f"""
_base_ = '{ROOT}/configs/cim-%s_vit-t_shapes.py'
model = dict(
    tokenizer=dict(checked=False, model=dict(num_embed=32, width=8)),  # after two steps it decodes badly
    generator=dict(vocabulary=32),
)
train_dataloader = dict(dataset=dict(size=64))
train_cfg = dict(max_epochs=1)
param_scheduler = None
for loader in (_base_.val_dataloader, _base_.test_dataloader, *[_base_.custom_hooks[-1][key] for key in NAMES]):
    loader.dataset.size = 40
"""


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """The folder of a demo with little data."""
    folder = tmp_path_factory.mktemp('cim')
    files = dict(tokenizer=SMALL_TOKENIZER)
    for task in ('respix', 'revdet'):
        files[task] = (SMALL_CIM % task).replace('NAMES', "('bank', 'queries')")
    for name, text in files.items():
        (folder / f'{name}.py').write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cim_demo, 'TOKENIZER', str(folder / 'tokenizer.py'))
        patch.setattr(cim_demo, 'CONFIGS', {task: str(folder / f'{task}.py') for task in ('respix', 'revdet')})
        main(['--method', 'cim', '--work-dir', str(folder / 'out'), '--seed', '3'])
    return folder / 'out'


@pytest.mark.slow
def test_leaves_picture_summary_and_checkpoints(demo):
    summary = json.loads((demo / 'summary.json').read_text())
    assert set(summary) == {
        'respix_psnr_corrupted_db', 'respix_psnr_output_db', 'revdet_auroc', 'revdet_auroc_untrained',
        'generator_token_accuracy', 'most_frequent_token_share', 'replaced_share', 'frozen_respix', 'frozen_revdet',
        'minutes', 'cpu_minutes', 'seed', 'hardware', 'commit', 'date',
    }  # fmt: skip
    assert summary['seed'] == 3
    assert 5 < summary['respix_psnr_corrupted_db'] < 40
    assert 0 < summary['replaced_share'] < 0.55
    assert summary['revdet_auroc'] != summary['revdet_auroc_untrained']  # of other weights, on the same images
    assert 0 <= summary['frozen_respix']['linear_top1'] <= 100
    assert (demo / 'corrupted.png').stat().st_size > 10_000
    for part in ('tokenizer', 'respix', 'revdet'):
        assert (demo / part / 'epoch_1.pth').is_file()


def test_a_config_is_of_ebm_alone(capsys):
    with pytest.raises(SystemExit):
        main(['--method', 'cim', '--config', 'ebm_vit-t_shapes'])
    assert '--config is of --method ebm' in capsys.readouterr().err


def test_a_group_has_the_rows_that_its_samples_have(tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    from mmpretrain.structures import DataSample
    from torch import zeros

    labels = []
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *_, **__: labels.extend(a.get_ylabel() for a in self.axes if a.get_ylabel())
    )
    one, other = DataSample(), DataSample()
    for name in ('clean', 'restored'):
        one.set_field(zeros(3, 4, 4), name)
    for name in ('clean', 'detected_map'):
        other.set_field(zeros(1 if 'map' in name else 3, 4, 4), name)
    plot_restorations(dict(a=[one], b=[other]), tmp_path / 'a.png', cim_demo.ROWS)
    assert labels == ['clean', 'restored', 'clean', 'detected map']
