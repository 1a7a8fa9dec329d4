"""Rank correlations of metrics without labels, over the work dirs of a comparison."""

import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from benchmarks.label_free import correlations, find_points, main, spread
from mmebm.datasets import Shapes
from mmebm.experiments.results import read_rows

BACKBONE = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
    img_size=8,
    patch_size=4,
    out_type='featmap',
    with_cls_token=True,
)
MODEL = dict(
    type='ImageClassifier',
    backbone=BACKBONE | dict(init_cfg=dict(type='Pretrained', checkpoint='not/here.pth', prefix='backbone.')),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)


@pytest.fixture
def work_dir(tmp_path):
    """Six runs of two methods: weights, scores, and the config by which these were measured."""
    for i in range(6):
        folder = tmp_path / 'work' / f'method{i % 2}' / f'seed_{i}'
        folder.mkdir(parents=True)
        torch.manual_seed(i)
        state = MODELS.build(BACKBONE).state_dict()
        torch.save(
            dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), folder / 'backbone_4.pth'
        )
        row = dict(
            method=f'method{i % 2}', seed=i, epoch=4, linear_top1=40.0 + i, knn_top1=30.0 - i, finetune_top1=None
        )
        (folder / 'point_4.json').write_text(json.dumps(row))
        dataset = dict(type='mmebm.Shapes', size=60, image_size=8, pipeline=[dict(type='PackInputs')])
        loader = dict(batch_size=20, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
        cfg = dict(default_scope='mmpretrain', model=MODEL, val_dataloader=loader,
                   data_preprocessor=dict(mean=[128.0] * 3, std=[64.0] * 3, num_classes=10))  # fmt: skip
        Config(cfg).dump(folder / 'evaluation.py')
    return tmp_path / 'work'


def test_all_runs_are_measured_and_correlated(work_dir, tmp_path, monkeypatch):
    arguments = [str(work_dir), '--images', '40', '--views', '3', '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', ['label_free', *arguments])
    main()
    runs, rows = (read_rows(tmp_path / name) for name in ('label_free_runs.json', 'label_free.json'))
    assert len(runs) == 6 and len({run['rankme'] for run in runs}) == 6
    assert all(1 < run['rankme'] <= 16 and 1 < run['lidar'] <= 16 for run in runs)
    assert {(row['metric'], row['against'], row['runs'], row['of']) for row in rows} == {
        (metric, against, 6, 'all')
        for metric in ('rankme', 'alpha_req', 'lidar')
        for against in ('linear_top1', 'knn_top1')
    }
    by_key = {(row['metric'], row['against']): row['spearman'] for row in rows}
    assert by_key['rankme', 'knn_top1'] == pytest.approx(-by_key['rankme', 'linear_top1'])
    assert all(row['images'] == 40 and row['commit'] and row['date'] and row['hardware'] for row in rows)


def test_correlations_by_hand():
    runs = [
        dict(method='a' if i < 5 else 'b', rankme=float(i), alpha_req=float('nan') if i == 0 else -float(i),
             lidar=[0.0, 2, 1, 3, 4, 5][i], linear_top1=10.0 * i, finetune_top1=1.0 * i if i % 2 else None)
        for i in range(6)
    ]  # fmt: skip
    rows = {(row['metric'], row['against'], row['of']): row for row in correlations(runs)}
    assert rows['rankme', 'linear_top1', 'all']['spearman'] == 1
    assert rows['alpha_req', 'linear_top1', 'all'] == rows['alpha_req', 'linear_top1', 'all'] | dict(
        spearman=-1, runs=5
    )
    # One pair of neighbours swapped: 1 - 6 * 2 / (n (n^2 - 1)).
    assert rows['lidar', 'linear_top1', 'all']['spearman'] == pytest.approx(1 - 12 / 210, abs=1e-3)
    assert rows['lidar', 'linear_top1', 'a']['spearman'] == pytest.approx(1 - 12 / 120, abs=1e-3)
    assert not any(against == 'finetune_top1' or of == 'b' for _, against, of in rows)  # fewer than five


def test_images_are_spread_over_the_classes():
    assert spread(10, 5) == [0, 2, 4, 6, 8] and spread(3, 5) == [0, 1, 2]
    shapes = Shapes(size=20)
    assert len({shapes.get_data_info(i)['sample_idx'] for i in spread(20, 20)}) == 20


def test_what_is_missing_is_named(work_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder; give work dirs of tools/compare.py'):
        find_points([tmp_path / 'nowhere'])
    for weights in sorted(work_dir.rglob('backbone_4.pth'))[:2]:
        weights.unlink()
    with pytest.raises(FileNotFoundError, match=r'4 of 6 point_N.json in .*have backbone_N.pth and evaluation.py'):
        find_points([work_dir])
