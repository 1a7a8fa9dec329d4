"""How well replaced tokens are found: by RevDet, and by the energy of a model that was trained to restore images.

    python -m benchmarks.cim_detection work_dirs/demo_cim/revdet/epoch_2.pth work_dirs/demo/epoch_7.pth

All see the same corrupted images, the test images of RevDet's config as the generator of the first checkpoint changes
them. The score of a token is RevDet's logit, the root mean square of dE/dx over its pixels, or the energy of its
position. Each model is also scored with initial weights. Writes ``results/cim_detection.json``.
"""

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.output import RESULTS
from mmebm.config_files import find_config
from mmebm.energy import energy_gradient
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows
from mmebm.model_building import build_initialized

REVDET, EBM = 'cim-revdet_vit-t_shapes', 'ebm_vit-t_shapes'


def main() -> None:
    """Predict, score and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('revdet', help=f'a checkpoint of {REVDET}')
    parser.add_argument('ebm', help=f'a checkpoint of {EBM}')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('WARNING')  # every initialised weight is an INFO
    cim, ebm = model(REVDET, args.revdet), model(EBM, args.ebm)
    corrupted, replaced, logits = corrupted_images(cim)
    scores = {('RevDet', 'trained'): logits}
    scores |= {('RevDet', 'initial'): logits_of(model(REVDET), corrupted)}
    for weights, network in (('trained', ebm), ('initial', model(EBM))):
        scores[('gradient of the energy', weights)] = of_gradient(network, corrupted, cim.tokenizer.stride)
        scores[('energy of the position', weights)] = of_energies(network, corrupted).unflatten(1, replaced.shape[1:])
    rows = [
        dict(detector=detector, weights=weights, auroc=round(float(roc_auc_score(replaced.ravel(), score.ravel())), 4))
        for (detector, weights), score in scores.items()
    ]
    about = dict(images=len(corrupted), replaced_share=round(float(replaced.float().mean()), 4), device=hardware())
    files = dict(revdet=args.revdet, ebm=args.ebm)
    write_rows(RESULTS / 'cim_detection.json', [row | about | files | stamp() for row in rows])
    print(markdown_table(['detector', 'weights', 'AUROC'], [[*map(str, row.values())] for row in rows]))


def model(name: str, checkpoint: str | None = None) -> nn.Module:
    """A config's model with the weights of a checkpoint, or with initial ones."""
    cfg = Config.fromfile(find_config(name))
    cfg.randomness.seed = 0
    torch.manual_seed(0)
    if 'tokenizer' in cfg.model:
        cfg.model.tokenizer.model.init_cfg = None  # a checkpoint has its weights
    network = build_initialized(cfg).cpu()
    if checkpoint:
        load_checkpoint(network, checkpoint, map_location='cpu', strict=True)
    return network.eval()


def corrupted_images(cim: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Corrupted test images (N, C, H, W) in pixel units, which tokens (N, h, w) were replaced, and RevDet's logits."""
    loader = Runner.build_dataloader(Config.fromfile(find_config(REVDET)).test_dataloader)
    samples = [sample for batch in loader for sample in cim.test_step(batch)]
    return tuple(
        torch.stack([sample.get(name) for sample in samples]) for name in ('corrupted', 'replaced', 'replaced_logits')
    )


def logits_of(cim: nn.Module, corrupted: Tensor) -> Tensor:
    """RevDet's logits (N, h, w) for images (N, C, H, W) in pixel units."""
    with torch.no_grad():
        return torch.cat([cim.head(cim.backbone(cim.from_pixels(part))) for part in corrupted.split(100)])


def of_gradient(ebm: nn.Module, corrupted: Tensor, side: int) -> Tensor:
    """Root mean square (N, h, w) of dE/dx over patches of ``side`` pixels, of images (N, C, H, W) in pixel units."""
    gradients = (
        energy_gradient(ebm.energy, ebm.from_pixels(part), create_graph=False)[1] for part in corrupted.split(100)
    )
    return torch.cat([F.avg_pool2d(gradient.square().mean(dim=1), side).sqrt() for gradient in gradients])


def of_energies(ebm: nn.Module, corrupted: Tensor) -> Tensor:
    """Energies (N, L) of the positions of images (N, C, H, W) in pixel units."""
    with torch.no_grad():
        parts: Iterator[Tensor] = (ebm.energy_parts(ebm.from_pixels(part)) for part in corrupted.split(100))
        side = ebm.backbone.patch_resolution[0]
        return torch.cat([part[:, -(side**2) :] for part in parts])


if __name__ == '__main__':
    main()
