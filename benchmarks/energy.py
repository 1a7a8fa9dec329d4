"""How well the energy of a trained model tells clean images from corrupted ones, and from those of another data set.

    python -m benchmarks.energy CHECKPOINT --config peers/ebm-nce_vit-w128_32px --data FOLDER --name cifar10

Runs the config's own test on ``FOLDER/test``, then scores its clean images beside as many of Shapes at the same size.
Writes ``results/energy_NAME.json``: a row for each corruption, and one for the other data set.
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
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows
from mmebm.launch.options import replace_data_root


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
    parser.add_argument('--config', default='peers/ebm-nce_vit-w128_32px')
    parser.add_argument('--data', required=True, help='a folder with test/, in it one folder per class')
    parser.add_argument('--name', required=True, help='of the data set, for the file of results')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(find_config(args.config))
    replace_data_root(cfg, cfg.data_root, args.data)
    cfg.update(load_from=args.checkpoint, work_dir=tempfile.mkdtemp(), log_level='WARNING')
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    rows = [
        dict(against=key.split('/')[1], auroc=value, pair_accuracy=metrics[key.replace('auroc', 'pair_accuracy')])
        for key, value in metrics.items()
        if key.endswith('/auroc')
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
    rows.append(dict(against='Shapes (other images)', auroc=auroc, pair_accuracy=None))

    rows = [row | dict(images=len(known), config=args.config, device=hardware()) | stamp() for row in rows]
    write_rows(RESULTS / f'energy_{args.name}.json', rows)
    shown = [[row['against'], *(f'{row[key]:.3f}' if row[key] is not None else '-' for key in COLUMNS)] for row in rows]
    print(markdown_table(['against', *COLUMNS], shown))


COLUMNS = ('auroc', 'pair_accuracy')

if __name__ == '__main__':
    main()
