"""Throughput of a ``Restorer`` on image files, beside that of its model alone on images that are in memory already.

    python -m benchmarks.restorer_throughput
    python -m benchmarks.restorer_throughput --config ebm_vit-b_in1k --images 5000

Both compute the same energies or features of the same images, one after the other, several times; the ratio is that of
the medians. Files are JPEGs of Shapes, which the config's test pipeline decodes, resizes and crops.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from benchmarks.output import RESULTS
from mmebm.apis import Restorer
from mmebm.datasets import Shapes
from mmebm.experiments.results import hardware, stamp, write_rows


def main() -> None:
    """Measure; ``--help`` lists the flags."""
    args = make_parser().parse_args()
    restorer = Restorer(args.config, batch_size=args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images, args.image_size)
        batches = [batch.clean for batch in batches_of(restorer, folder)]
        rows = [row(name, *times, args) for name, times in measure(restorer, folder, batches, args.rounds).items()]
    for one in rows:
        print(f'{one["what"]}: {one["restorer"]} of {one["model"]} images/s, {one["ratio"]:.0%}')
    write_rows(args.out, rows)


def write_images(folder: Path, number: int, size: int) -> None:
    """Write pictures of Shapes as JPEG files."""
    shapes = Shapes(size=number, image_size=size, split='val')
    for i in range(number):
        Image.fromarray(shapes.draw(i).img[..., ::-1]).save(folder / f'{i:05}.jpg', quality=90)


def batches_of(restorer: Restorer, folder: str) -> list:
    """The batches of a folder, as its model gets them."""
    found: list = []
    list(restorer._run(folder, None, lambda batch: found.append(batch) or [], progress=False))
    return found


def measure(restorer: Restorer, folder: str, batches: list, rounds: int) -> dict[str, tuple[list, list]]:
    """Seconds of the restorer and of the model, a number for each round, by what is computed."""
    model = restorer.model
    pairs: dict[str, tuple[Callable, Callable]] = {
        'energy': (lambda: restorer.energy(folder, maps=False, progress=False), model.energy),
        'features': (lambda: restorer.features(folder, progress=False), model.extract_feat),
    }
    seconds: dict[str, tuple[list, list]] = {name: ([], []) for name in pairs}
    for _ in range(rounds):
        for name, (ours, bare) in pairs.items():
            seconds[name][0].append(timed(lambda ours=ours: [*ours()]))
            with torch.no_grad():
                seconds[name][1].append(timed(lambda bare=bare: [bare(images) for images in batches]))
    return seconds


def timed(run: Callable) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def row(what: str, ours: list[float], bare: list[float], args: argparse.Namespace) -> dict:
    """A row of the results."""
    median, alone = statistics.median(ours), statistics.median(bare)
    return dict(
        config=args.config, what=what, images=args.images, restorer=round(args.images / median, 1),
        model=round(args.images / alone, 1), ratio=round(alone / median, 3), threads=torch.get_num_threads(),
        hardware=hardware('cuda' if torch.cuda.is_available() else 'cpu'), **stamp(),
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.restorer_throughput', description=__doc__.partition('\n')[0]
    )
    parser.add_argument('--config', default='ebm_vit-t_folder', help='a path or a name; weights are random')
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--image-size', type=int, default=320, help='of the files, in pixels')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=RESULTS / 'restorer_throughput.json')
    return parser


if __name__ == '__main__':
    main()
