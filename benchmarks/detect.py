"""How well energies find defects, images of other data sets, and oddities in a data set, beside simple baselines.

    python -m benchmarks.detect CHECKPOINT
    python -m benchmarks.detect CHECKPOINT --data FOLDER --other FOLDER
    python -m benchmarks.detect CHECKPOINT --mvtec CATEGORY

Without ``--data``, held-out Shapes. With ``--mvtec``, the defects of a category in the layout of MVTec AD, and nothing
else. Polarity of every score and map: higher = worse. Three parts:

- defects drawn onto images: AUROC of images, by the largest value of a map, and of pixels, AUPRO; maps: |dE/dx|,
  energies of tokens, what one restoration changes, distance of patch features to the nearest in images without defects;
- images of other data sets (``--other``, handwritten digits, crops of photographs): AUROC, FPR95 (the share of known
  images that are taken for others where 95% of the others are found), rank correlation of a score with the PNG size;
- 2% of planted oddities: their share among the first 2%, ranked by a score.

Baselines: size as PNG, total variation; of the oddities also cleanvision. Writes ``results/detect.json`` and
``results/outliers.json``. Needs ``pip install ".[benchmarks]"``.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from benchmarks.defects import DEFECTS, ODDITIES, png_size, variation
from benchmarks.detection_tools import aupro, cleanvision_scores
from benchmarks.mvtec import read_category
from benchmarks.output import RESULTS
from mmebm.apis import Restorer
from mmebm.apis.sources import Item, expand
from mmebm.datasets import Shapes
from mmebm.experiments.results import markdown_table, stamp, write_rows

POLARITY = 'higher = worse'
MAPS = ('gradient', 'tokens', 'residual', 'knn of patches', 'total variation')
SHARE = 0.02


class Scorer:
    """Maps and scores of images; higher = worse.

    Args:
        restorer: With an energy.
        normal: Images without defects, other ones than those that are scored.
    """

    def __init__(self, restorer: Restorer, normal: list[NDArray]) -> None:
        self.restorer = restorer
        self.patches = torch.cat([tokens_of(one) for one in self._features(normal, pooled=False)])
        self.pooled = torch.stack(list(self._features(normal, pooled=True)))

    def maps(self, images: list[NDArray]) -> dict[str, NDArray]:
        """Each of ``MAPS``, (N, H, W)."""
        energies = list(self.restorer.energy(images, progress=False))
        restored = self.restorer.restore(images, num_steps=1, progress=False)
        size = energies[0].gradient.shape
        features = self._features(images, pooled=False)
        found = dict(
            gradient=[one.gradient for one in energies],
            residual=[one.residual for one in restored],
        )
        if energies[0].token_energies is not None:
            found['tokens'] = [enlarged(one.token_energies, size) for one in energies]
        found['knn of patches'] = [enlarged(self._distance(one), size) for one in features]
        maps = {name: torch.stack(values).numpy() for name, values in found.items()}
        seen = [one.image.permute(1, 2, 0).numpy() for one in energies]
        return maps | {'total variation': np.stack([variation(image) for image in seen])}

    def scores(self, images: list[NDArray]) -> dict[str, NDArray]:
        """Scores (N,) of whole images."""
        energies = list(self.restorer.energy(images, progress=False))
        pooled = torch.stack(list(self._features(images, pooled=True)))
        return {
            'energy': np.array([one.energy for one in energies]),
            'norm of dE/dx': np.array([float(one.gradient.norm()) for one in energies]),
            'knn of features': torch.cdist(pooled, self.pooled).topk(5, largest=False).values.mean(dim=1).numpy(),
            'png size': np.array([png_size(image) for image in images], float),
            'mean total variation': np.array([variation(image).mean() for image in images]),
        }

    def _features(self, images: list[NDArray], pooled: bool) -> Iterator[Tensor]:
        return (one.features for one in self.restorer.features(images, pooled=pooled, progress=False))

    def _distance(self, features: Tensor) -> Tensor:
        nearest = torch.cdist(tokens_of(features), self.patches).min(dim=1).values
        return nearest.unflatten(0, features.shape[1:])


def tokens_of(features: Tensor) -> Tensor:
    """Patch features (L, D) of a map (D, h, w)."""
    return features.flatten(1).T.contiguous()


def enlarged(cells: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map (h, w) at the size of the image."""
    return torch.nn.functional.interpolate(cells[None, None], size=tuple(size), mode='bilinear')[0, 0]


def of_defects(scorer: Scorer, images: list[NDArray], name: str) -> Iterator[dict]:
    """Rows of defects: the second half of the images has them."""
    half = len(images) // 2
    good, others = images[:half], images[half : 2 * half]
    for defect, draw in DEFECTS.items():
        rng = np.random.default_rng(0)
        damaged, masks = zip(*(draw(image, others[i - 1], rng) for i, image in enumerate(others)), strict=True)
        yield from of_defect(scorer, good, damaged, masks, (name, defect))


def of_mvtec(restorer: Restorer, folder: Path, bank: int) -> Iterator[dict]:
    """Rows of each defect of a category of MVTec AD."""
    category = read_category(folder)
    scorer = Scorer(restorer, as_seen(restorer, category.normal[:bank]))
    good = as_seen(restorer, category.good)
    for defect, files in category.defects.items():
        images, masks = (as_seen(restorer, paths) for paths in zip(*files, strict=True))
        yield from of_defect(
            scorer, good, images, [mask.max(axis=2) > 127 for mask in masks], (f'mvtec {folder.name}', defect)
        )


def of_defect(
    scorer: Scorer, good: list[NDArray], damaged: Sequence[NDArray], masks: Sequence[NDArray], names: tuple[str, str]
) -> Iterator[dict]:
    """Rows of one defect, by its map or its score; names of data and defect."""
    truth = np.concatenate([np.zeros((len(good), *masks[0].shape), bool), np.stack(masks)])
    shown, is_damaged = [*good, *damaged], np.arange(len(truth)) >= len(good)
    for kind, values in scorer.maps(shown).items():
        image_auroc = roc_auc_score(is_damaged, values.max(axis=(1, 2)))
        pixel_auroc = roc_auc_score(truth.ravel(), values.ravel())
        yield row(*names, kind, image_auroc, pixel_auroc, aupro(values, truth))
    for kind, values in scorer.scores(shown).items():
        yield row(*names, kind, roc_auc_score(is_damaged, values))


def of_others(scorer: Scorer, images: list[NDArray], others: dict[str, list], name: str) -> Iterator[dict]:
    """Rows of images of other data sets."""
    for other, foreign in others.items():
        known = images[: len(foreign)]
        is_foreign = np.arange(len(known) + len(foreign)) >= len(known)
        scores = scorer.scores([*known, *foreign])
        for kind, values in scores.items():
            false, true, _ = roc_curve(is_foreign, values, drop_intermediate=False)
            yield row(
                name, f'other data: {other}', kind, roc_auc_score(is_foreign, values),
                fpr95=round(float(false[np.argmax(true >= 0.95)]), 4),
                spearman_with_png_size=round(float(spearmanr(values, scores['png size']).statistic), 3),
            )  # fmt: skip


def of_oddities(scorer: Scorer, images: list[NDArray], others: dict[str, list]) -> Iterator[dict]:
    """Rows of planted oddities: how many of the first 2% they are."""
    number = max(1, round(SHARE * len(images)))
    rng = np.random.default_rng(0)
    planted = {kind: [make(image, rng) for image in images[:number]] for kind, make in ODDITIES.items()}
    planted |= {f'other data: {other}': foreign[:number] for other, foreign in others.items()}
    common = scorer.scores(images[number:])
    for kind, odd in planted.items():
        scores = {method: np.concatenate([values, common[method]]) for method, values in scorer.scores(odd).items()}
        scores['cleanvision'] = cleanvision_scores([*odd, *images[number:]])
        for method, values in scores.items():
            ranked = values.argsort()[::-1][:number]
            yield dict(planted=kind, method=method, precision=round(float((ranked < number).mean()), 3),
                       images=len(images), polarity=POLARITY, **stamp())  # fmt: skip


def row(
    data: str, defect: str, kind: str, image: float, pixel: float | None = None, pro: float | None = None,
    **more: float,
) -> dict:  # fmt: skip
    """A row of ``detect.json``; scores of whole images have nothing of pixels."""
    figures = dict(image_auroc=image, pixel_auroc=pixel, aupro=pro)
    rounded = {name: None if value is None else round(float(value), 4) for name, value in figures.items()}
    return dict(data=data, defect=defect, map=kind, **rounded, **more, polarity=POLARITY, **stamp())


def as_seen(restorer: Restorer, paths: Sequence[Path]) -> list[NDArray]:
    """Files as the model takes them, uint8; BGR."""
    return [np.clip(restorer.prepare(Item(str(path), str(path))), 0, 255).astype(np.uint8) for path in paths]


def of_folder(restorer: Restorer, folder: str, number: int) -> list[NDArray]:
    """The first images of a folder."""
    items, _ = expand(folder)
    return as_seen(restorer, [Path(item.name) for item, _ in zip(items, range(number), strict=False)])


def of_sklearn(size: int, number: int) -> dict[str, list[NDArray]]:
    """Handwritten digits, and crops of two photographs, at a size."""
    rng = np.random.default_rng(0)
    digits = [cv2.resize((image * 15.9).astype(np.uint8), (size, size)) for image in load_digits().images[:number]]
    crops = []
    for photo in load_sample_images().images * (number // 2 + 1):
        side = int(rng.integers(size, 200))
        y, x = (rng.integers(extent - side) for extent in photo.shape[:2])
        crop = photo[y : y + side, x : x + side, ::-1]
        crops.append(cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA))
    return dict(digits=[cv2.cvtColor(digit, cv2.COLOR_GRAY2BGR) for digit in digits], photographs=crops[:number])


def main() -> None:
    """Measure; ``--help`` lists the flags."""
    args = make_parser().parse_args()
    restorer = Restorer(args.config or args.checkpoint, args.checkpoint if args.config else None, batch_size=100)
    if args.mvtec:
        report(of_mvtec(restorer, args.mvtec, args.bank), args.out / 'detect.json')
        return
    if args.data == 'shapes':
        size = restorer.model.backbone.img_size
        size = size if isinstance(size, int) else size[0]
        draw = {split: Shapes(size=args.images, image_size=size, split=split).draw for split in ('train', 'val')}
        normal, images = ([draw[split](i).img for i in range(args.images)] for split in ('train', 'val'))
    else:
        both = of_folder(restorer, args.data, 2 * args.images)
        normal, images = both[1::2], both[::2]
        size = images[0].shape[0]
    others = of_sklearn(size, args.images // 2)
    others |= {Path(folder).name: of_folder(restorer, folder, args.images // 2) for folder in args.other}
    scorer = Scorer(restorer, normal[: args.bank])
    name = args.data if args.data == 'shapes' else Path(args.data).name
    report(of_defects(scorer, images, name), args.out / 'detect.json', of_others(scorer, images, others, name))
    report(of_oddities(scorer, images, others), args.out / 'outliers.json')


def report(rows: Iterable[dict], path: Path, more: Iterable[dict] = ()) -> None:
    """Write rows, and print them as a table."""
    rows = [*rows, *more]
    write_rows(path, rows)
    columns = [column for column in rows[0] if column not in ('commit', 'date', 'polarity')]
    text: Callable[[object], str] = lambda value: '-' if value is None else str(value)  # noqa: E731
    print(markdown_table(columns, [[text(one.get(column)) for column in columns] for one in rows]), flush=True)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.detect', description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('checkpoint')
    add('--config', help='that it was trained with (default: the one that it names)')
    add('--data', default='shapes', help='a folder of images, or: shapes (default)')
    add('--mvtec', type=Path, metavar='CATEGORY', help='in the layout of MVTec AD, such as data/mvtec/bottle')
    add('--other', nargs='*', default=[], metavar='FOLDER', help='of images that are not like those')
    add('--images', type=int, default=1000, help='how many are scored (default: %(default)s)')
    add('--bank', type=int, default=300, help='images behind the distances of features (default: %(default)s)')
    add('--out', type=Path, default=RESULTS, help='folder of the two files')
    return parser


if __name__ == '__main__':
    main()
