"""The folders of images that a comparison trains and tests on."""

from pathlib import Path

from mmengine.config import ConfigDict

from mmebm.datasets.embedded.shapes_files import write_shapes_once

TEST_FOLDERS = ('test', 'val')  # the first that lies beside ``train``


def find_data(data: str, images: int | None, work_dir: Path) -> Path:
    """The folder of the data; Shapes are drawn, 1,000 images to test with and ``images`` or 10,000 to train with."""
    if data != 'shapes':
        return Path(data).resolve()
    folder = work_dir / f'shapes_{images or 10_000}'
    write_shapes_once(folder, 'imagenet', train=images or 10_000, val=1000, image_size=32)
    return folder


def find_test_folder(data: Path) -> str:
    """``test`` or ``val``, whichever lies beside ``train``.

    Raises:
        FileNotFoundError: ``train``, or both of these are missing.
    """
    found = [name for name in TEST_FOLDERS if (data / name).is_dir()]
    if not (data / 'train').is_dir() or not found:
        raise FileNotFoundError(f'--data {data}: needs train/ and test/ or val/, in each one folder per class')
    return found[0]


def find_train_folder(data: Path) -> Path:
    """The folder ``train``.

    Raises:
        FileNotFoundError: It is missing.
    """
    if not (data / 'train').is_dir():
        raise FileNotFoundError(f'--data {data}: needs train/, in it one folder per class')
    return data / 'train'


def datasets_of(loader: ConfigDict | None) -> list[ConfigDict]:
    """The data sets of a loader's config, one of which may be made of several."""
    if loader is None:
        return []
    return loader.dataset.get('datasets', [loader.dataset])


def evenly_spaced(number: int, total: int) -> list[int]:
    """Indices of a part of a data set that is sorted by class, as many of each class as can be.

    Raises:
        ValueError: There are fewer images than asked for.
    """
    if not 0 < number <= total:
        raise ValueError(f'--images {number}: the folder train/ has {total}')
    return [i * total // number for i in range(number)]
