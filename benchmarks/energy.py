"""How well the energy of a trained model tells clean images from corrupted ones, and from those of another data set.

    python -m benchmarks.energy CHECKPOINT --config peers/ebm-nce_vit-w128_32px --data FOLDER --name cifar10

Restores the config's test images of ``FOLDER/test``, then scores the clean ones beside as many of Shapes at the same
size. Writes ``results/energy_NAME.json``: a row for each corruption, and one for the other data set. Energies are
higher for what is worse; where a corruption leaves patches as they were, and the head has an energy for each,
``token_auroc`` is that of these energies as a score of a patch being corrupted.
"""

import argparse
import tempfile

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.output import RESULTS
from mmebm.config_files import find_config
from mmebm.evaluation.restoration_metric import split_key
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows
from mmebm.launch.options import replace_data_root
from mmebm.models.selfsup.checks import has_token_energies
from mmebm.registry import MODELS


def energies(model: nn.Module, loader_config: dict, dataset: dict) -> Tensor:
    """Energies (N,) of the clean images of a data set."""
    loader = Runner.build_dataloader(dict(loader_config, dataset=dataset))  # the union of two ConfigDicts is deep
    scores = []
    with torch.no_grad():
        for batch in loader:
            inputs = model.data_preprocessor(batch, False)['inputs']
            scores.append(model.energy(inputs[-1] if isinstance(inputs, list) else inputs))
    return torch.cat(scores).cpu()


def main() -> None:
    """Test, score and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('checkpoint')
    parser.add_argument('--config', required=True, help='the one that the checkpoint was trained with')
    parser.add_argument('--data', required=True, help='a folder with test/, in it one folder per class')
    parser.add_argument('--name', required=True, help='of the data set, for the file of results')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(find_config(args.config))
    replace_data_root(cfg, cfg.data_root, args.data)
    cfg.update(load_from=args.checkpoint, work_dir=tempfile.mkdtemp(), log_level='WARNING')
    cfg.test_evaluator = [dict(type='mmebm.RestorationMetric'), dict(type='mmebm.EnergyMetric')]
    if has_token_energies(MODELS.build(cfg.model.head)):
        cfg.test_evaluator.append(dict(type='mmebm.TokenEnergyMetric'))
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    corruptions = [split_key(key)[1] for key in metrics if key.endswith('/pair_accuracy')]
    rows = [
        dict(against=name, **{column: metrics.get(key.format(name)) for column, key in COLUMNS.items()})
        for name in corruptions
    ]

    known = cfg.test_dataloader.dataset.datasets[0]
    known = energies(runner.model.eval(), cfg.test_dataloader, known)
    side = cfg.model.backbone.img_size
    shapes = dict(
        type='mmebm.Shapes', size=len(known), split='val', image_size=side, pipeline=[dict(type='PackInputs')]
    )
    ood = energies(runner.model, cfg.test_dataloader, shapes)
    is_ood = torch.cat([torch.zeros(len(known)), torch.ones(len(ood))])
    auroc = float(roc_auc_score(is_ood, torch.cat([known, ood])))
    rows.append(dict(against='Shapes (other images)') | dict.fromkeys(COLUMNS) | dict(auroc=auroc))

    rows = [row | dict(images=len(known), config=args.config, device=hardware()) | stamp() for row in rows]
    write_rows(RESULTS / f'energy_{args.name}.json', rows)
    shown = [[row['against'], *(f'{row[key]:.3f}' if row[key] is not None else '-' for key in COLUMNS)] for row in rows]
    print(markdown_table(['against', *COLUMNS], shown))


# Of the rows, and what the test calls them.
COLUMNS = {
    'auroc': 'energy/{}/auroc',
    'pair_accuracy': 'energy/{}/pair_accuracy',
    'token_auroc': 'token_energy/{}/auroc',
    'psnr_corrupted_db': 'restoration/{}/psnr_corrupted_db',
    'psnr_restored_db': 'restoration/{}/psnr_restored_db',
}

if __name__ == '__main__':
    main()
