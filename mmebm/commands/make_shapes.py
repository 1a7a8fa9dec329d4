"""``mmebm-make-shapes``: writes :class:`mmebm.datasets.Shapes` as files, laid out as ImageNet, ADE20K or COCO."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmebm.datasets import Picture, Shapes

CLASSES = Shapes.METAINFO['classes']


def main(argv: Sequence[str] | None = None) -> None:
    """Write both splits; ``--help`` lists the flags."""
    parser = _parser()
    args = parser.parse_args(argv)
    out = Path(args.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        parser.error(f'{out} exists and is not an empty folder; name a new one, or remove it first.')
    try:
        datasets = {
            split: Shapes(size=size, image_size=args.image_size, split=split, seed=args.seed)
            for split, size in (('train', args.train), ('val', args.val))
        }
    except ValueError as error:
        parser.error(str(error))
    write, hint = LAYOUTS[args.layout]
    for split, dataset in datasets.items():
        write(out, split, _pictures(dataset, f'Drawing {len(dataset)} {split} images'))
    print(f'{args.train} train and {args.val} val images, {args.image_size} px, in {out.resolve()}')
    print(f'{len(CLASSES)} classes: {", ".join(CLASSES)}')
    print(hint)


def write_imagenet(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``<split>/<class>/<name>.png``."""
    for name, picture in pictures:
        _write(out / split / CLASSES[picture.gt_label] / f'{name}.png', picture.img)


def write_ade20k(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``images/<folder>/<name>.jpg`` and label maps ``annotations/<folder>/<name>.png``.

    A label is 0 = background or 1 + class; mmseg's ``reduce_zero_label`` turns that into ignored and class.
    """
    folder = {'train': 'training', 'val': 'validation'}[split]
    for name, picture in pictures:
        _write(out / 'images' / folder / f'{name}.jpg', picture.img)
        _write(out / 'annotations' / folder / f'{name}.png', picture.gt_seg_map)


def write_coco(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``<split>2017/<name>.jpg`` and ``annotations/instances_<split>2017.json``.

    Masks are uncompressed run lengths, since rings and hidden parts are no polygons. Category ids are 1 + class.
    """
    images, annotations = [], []
    for image_id, (name, picture) in enumerate(pictures, start=1):
        height, width = picture.gt_seg_map.shape
        images.append(dict(id=image_id, file_name=f'{name}.jpg', height=height, width=width))
        _write(out / f'{split}2017' / f'{name}.jpg', picture.img)
        for instance in picture.instances:
            x1, y1, x2, y2 = instance.bbox
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=instance.label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=int(instance.mask.sum()),
                    segmentation=dict(size=[height, width], counts=run_lengths(instance.mask)),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    path = out / 'annotations' / f'instances_{split}2017.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encode a bool mask (H, W) as COCO does: lengths of the runs down the columns, the first of them outside."""
    flat = mask.ravel(order='F').astype(np.int8)
    changes = np.diff(flat, prepend=0).nonzero()[0]  # a mask that starts inside gets a first run of length 0
    return np.diff(changes, prepend=0, append=flat.size).tolist()


LAYOUTS = {
    'imagenet': (
        write_imagenet,
        "Read it with type='mmebm.ImageFolder' (with_label=True) or 'mmpretrain.CustomDataset'.",
    ),
    'ade20k': (
        write_ade20k,
        "Set `data_root` of mmseg's ADE20K configs to this folder; for these classes alone use type='BaseSegDataset' "
        'with reduce_zero_label=True and metainfo=dict(classes=...).',
    ),
    'coco': (write_coco, "Set `data_root` of mmdet's COCO configs to this folder, and metainfo=dict(classes=...)."),
}


def _pictures(dataset: Shapes, title: str) -> Iterator[tuple[str, Picture]]:
    for i in track(range(len(dataset)), description=title):
        yield f'{dataset.split}_{i:08d}', dataset.draw(i)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'{path} could not be written; is the disk full?')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mmebm-make-shapes',
        description='Draw the embedded data set of shapes and write it as files.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', metavar='OUT', help='a folder that is new or empty')
    parser.add_argument('--layout', choices=LAYOUTS, required=True, help='the data set whose folders to imitate')
    parser.add_argument('--train', type=int, default=2000, metavar='N', help='number of training images')
    parser.add_argument('--val', type=int, default=500, metavar='N', help='number of validation images')
    parser.add_argument('--image-size', type=int, default=224, metavar='PIXELS', help='height and width')
    parser.add_argument('--seed', type=int, default=0, help='another seed makes other images')
    return parser
