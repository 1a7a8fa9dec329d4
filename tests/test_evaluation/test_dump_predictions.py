"""The file of predictions that tools/test.py --out writes."""

import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample
from shrink import shrink
from tiny import build_ebm

from mmebm.commands.test import main
from mmebm.config_files import find_config
from mmebm.evaluation import DumpPredictions
from mmebm.model_building import build
from mmebm.models.selfsup.base import fill
from mmebm.registry import METRICS


def storage(tensor):
    return tensor.untyped_storage().nbytes()


def test_a_prediction_keeps_no_other_one_alive():
    images = torch.rand(20, 3, 8, 8)
    for inputs in (images, [images, images.flip(0)]):
        for sample in build_ebm().predict(inputs):
            for name, value in sample.to_dict().items():
                assert storage(value) == value.nbytes, name
    (sample, _) = fill(None, dict(numbers=torch.arange(2.0)))
    assert storage(sample.numbers) == 4


def dumped(tmp_path, predictions, **options):
    path = tmp_path / 'predictions.pkl'
    metric = METRICS.build(dict(type='mmebm.DumpPredictions', out_file_path=str(path), **options))
    evaluator = Evaluator(metric)
    evaluator.process(predictions)
    evaluator.evaluate(len(predictions))
    return path, pickle.loads(path.read_bytes())


def test_views_of_a_batch_are_written_one_by_one(tmp_path):
    """As mmpretrain's classification heads make them."""
    samples = [DataSample().set_pred_score(score) for score in torch.rand(64, 1000)]
    path, rows = dumped(tmp_path, samples)
    assert all(storage(row['pred_score']) == 4000 for row in rows)
    torch.testing.assert_close(rows[3]['pred_score'], samples[3].pred_score)
    assert path.stat().st_size < 2 * 64 * 4000


def restorations():
    return build_ebm().predict([torch.rand(4, 3, 8, 8)] * 2)


def test_images_are_left_out_unless_asked_for(tmp_path):
    _, rows = dumped(tmp_path, restorations())
    assert [set(row) for row in rows] == [{'energies', 'clean_energy', 'token_energies'}] * 4
    _, rows = dumped(tmp_path, restorations(), images=True)
    assert rows[0].keys() == {'energies', 'clean_energy', 'token_energies', 'corrupted', 'restored', 'clean'}
    assert rows[0]['clean'].shape == (3, 8, 8)


def test_another_ending_is_refused():
    with pytest.raises(ValueError, match='must be a pkl file'):
        DumpPredictions('predictions.json')


@pytest.mark.slow
def test_out_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    shipped = Config.fromfile(find_config('ebm_vit-t_shapes'))
    cfg = shrink(shipped.copy(), str(tmp_path))
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[key] = shipped[key]
    for dataset in cfg.test_dataloader.dataset.datasets:
        dataset.size = 4
    cfg.dump(tmp_path / 'config.py')
    checkpoint = str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict=build(cfg.model).state_dict()), checkpoint)
    main([str(tmp_path / 'config.py'), checkpoint, '--out', str(tmp_path / 'out.pkl')])
    rows = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert len(rows) == 20 and rows[0].keys() == {
        'energies', 'clean_energy', 'token_energies', 'sample_idx', 'corruption', 'gt_label'
    }  # fmt: skip
    assert (tmp_path / 'out.pkl').stat().st_size < 40_000  # with images, 2 MB
