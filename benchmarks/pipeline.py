"""How many images per second one core feeds to training, with each corruption.

    python -m benchmarks.pipeline                                   JPEGs made for the purpose
    python -m benchmarks.pipeline --data-root data/imagenet/train   your own

Each variant is the training pipeline of a shipped config, from the file to the packed pair of 224x224 images;
``mmpretrain-cv2`` is that of mmpretrain's MAE, which makes no pair, with the same decoder and resizing as ours. Without
a folder, the images have the size of ImageNet's: drawings of Shapes under clouds with a 1/f spectrum, 500x375 pixels,
105 to 110 KiB each in the mean. One process with one thread takes every image through all variants in turn, in several
rounds; the first, which also brings the files into memory, does not count, and the figure is the median of the others,
in time of the CPU. Batches are put together later, and normalised on the GPU. Writes ``results/pipeline_cpu.json``.
"""

import argparse
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.output import REPOSITORY, RESULTS
from mmebm.datasets import ImageFolder, Shapes
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows

REFERENCE = 'mmpretrain-cv2'
MAE = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
CONFIGS = {
    'mask': 'ebm-mask_vit-b_in1k',
    'sort': 'ebm-sort_vit-b_in1k',
    'sr': 'ebm-sr_vit-b_in1k',
    'denoise': 'ebm-denoise_vit-b_in1k',
    'color': 'ebm-color_vit-b_in1k',
    'mix': 'ebm-mix_vit-b_in1k',
}
HEIGHT, WIDTH = 375, 500
JPEG_QUALITY = 92
CLOUDS = (15.0, 60.0)  # range of their standard deviation, in pixel units; with the quality, it sets the files' sizes


def mae_pipeline(decoder: str, resizer: str) -> list[dict]:
    """The training pipeline of mmpretrain's MAE, which is shipped with ``cv2`` and ``pillow``."""
    pipeline = get_config(MAE).train_dataloader.dataset.pipeline
    pipeline[0].imdecode_backend = decoder
    pipeline[1].backend = resizer
    return pipeline


def our_pipeline(config: str) -> list[dict]:
    """The training pipeline of a shipped config."""
    return Config.fromfile(REPOSITORY / 'configs' / f'{config}.py').train_dataloader.dataset.pipeline


def pipelines() -> dict[str, list[dict]]:
    """All variants."""
    plain = [step for step in our_pipeline(CONFIGS['mask']) if step.type != 'mmebm.CorruptedPair']
    return {
        REFERENCE: mae_pipeline('cv2', 'cv2'),
        'mmpretrain': mae_pipeline('cv2', 'pillow'),
        'mmpretrain-pillow': mae_pipeline('pillow', 'pillow'),
        'no corruption': plain,
        **{name: our_pipeline(config) for name, config in CONFIGS.items()},
    }


def write_jpegs(folder: Path, count: int) -> None:
    """Write images of ImageNet's usual size into a folder."""
    rng = np.random.default_rng(0)
    drawings = Shapes(size=count, image_size=WIDTH)
    top = (WIDTH - HEIGHT) // 2
    for i in range(count):
        luminance, *color = (clouds(HEIGHT, WIDTH, rng) for _ in range(4))
        img = drawings[i]['img'][top : top + HEIGHT].astype(np.float64)
        img += rng.uniform(*CLOUDS) * (luminance[..., None] + np.stack(color, axis=-1) / 4)
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        cv2.imwrite(str(folder / f'{i:05}.jpg'), img.round().clip(0, 255).astype(np.uint8), jpeg)


def clouds(height: int, width: int, rng: Generator) -> NDArray[np.float64]:
    """Noise (height, width) whose amplitudes fall with 1/f, as those of photographs do; its standard deviation is 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width))
    return noise / noise.std()


def time_in_turn(dataset: ImageFolder, rounds: int) -> dict[str, float]:
    """Median seconds per image of each variant."""
    variants = {name: Compose(pipeline) for name, pipeline in pipelines().items()}
    seconds = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        spent = dict.fromkeys(variants, 0.0)
        for i in range(len(dataset)):
            for name, pipeline in variants.items():
                dataset.pipeline = pipeline
                np.random.seed(round_ * len(dataset) + i)  # the same crop for all
                start = time.process_time()
                dataset[i]
                spent[name] += time.process_time() - start
        if round_:  # the first reads the files into memory
            for name in variants:
                seconds[name].append(spent[name] / len(dataset))
        print(f'  round {round_} of {rounds}', file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(folder: Path, images: int, rounds: int, source: str) -> list[dict]:
    """One row per variant, measured on images spread evenly over a folder."""
    dataset = ImageFolder(data_root=str(folder))
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset)), dtype=int)
    dataset.get_subset_(chosen.tolist())
    sizes = [Path(dataset.get_data_info(i)['img_path']).stat().st_size for i in range(len(dataset))]
    seconds = time_in_turn(dataset, rounds)
    return [
        dict(
            device=hardware(),
            variant=name,
            images_per_second=round(1 / value, 1),
            ratio=round(seconds[REFERENCE] / value, 3),
            image_size=our_pipeline(CONFIGS['mask'])[1].scale,
            mean_file_kib=round(statistics.mean(sizes) / 1024, 1),
            source=source,
            **stamp(),
        )
        for name, value in seconds.items()
    ]


def report(rows: Sequence[dict], gpu_images_per_second: float) -> str:
    """A table, and what was measured."""
    columns = ('pipeline', 'images/s per core', f'of {REFERENCE}', f'workers for {gpu_images_per_second:g} images/s')
    lines = [
        (
            row['variant'],
            f'{row["images_per_second"]:.0f}',
            f'{row["ratio"]:.2f}',
            str(math.ceil(gpu_images_per_second / row['images_per_second'])),
        )
        for row in rows
    ]
    about = '{device}; JPEGs of {mean_file_kib} KiB in the mean ({source}); {date}, commit {commit}'.format(**rows[0])
    return f'{markdown_table(columns, lines)}\n\n{about}'


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data-root', type=Path, metavar='FOLDER', help='of images, nested or not; else some are made')
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--gpu-images-per-second', type=float, default=1100.0, help='what the workers are to feed')
    parser.add_argument('--output', type=Path, default=RESULTS / 'pipeline_cpu.json')
    args = parser.parse_args(argv)
    for name in ('images', 'rounds', 'gpu_images_per_second'):
        if getattr(args, name) <= 0:
            parser.error(f'--{name.replace("_", "-")} must be positive')
    MMLogger.get_instance('pipeline', log_level=logging.WARNING)
    init_default_scope('mmpretrain')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if args.data_root:
        rows = measure(args.data_root, args.images, args.rounds, str(args.data_root))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), args.images)
            rows = measure(Path(folder), args.images, args.rounds, 'generated')
    write_rows(args.output, rows)
    print(report(rows, args.gpu_images_per_second))


if __name__ == '__main__':
    main()
