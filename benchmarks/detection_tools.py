"""What other packages measure of detection: AUPRO (pyaupro), odd images of a data set (cleanvision)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

INSTALL = 'pip install ".[benchmarks]"'
FPR_LIMIT = 0.3


def aupro(maps: NDArray, masks: NDArray) -> float:
    """Area under the overlap of a region with what a map finds, by the rate of false positives up to 0.3, over 0.3.

    Args:
        maps: Maps (N, H, W), higher = worse.
        masks: Booleans (N, H, W); connected pixels are a region, and each counts alike.

    Returns:
        0 to 1; chance is 0.15, and a constant map 0.

    Raises:
        ImportError: pyaupro is not installed.
        ValueError: No pixel has a defect, or all have.
    """
    try:
        from pyaupro import PerRegionOverlap, auc_compute
    except ImportError as error:
        raise ImportError(f'AUPRO is computed by pyaupro: {INSTALL}') from error
    if masks.all() or not masks.any():
        raise ValueError('AUPRO needs pixels with a defect and pixels without')
    metric = PerRegionOverlap(thresholds=None, reference_implementation=True)  # its other one splits equal values
    metric.update(torch.from_numpy(maps.astype(np.float64)), torch.from_numpy(masks.astype(np.int64)))
    false_positive_rate, overlap = metric.compute()[:2]
    return float(auc_compute(false_positive_rate, overlap, limit=FPR_LIMIT))


def cleanvision_scores(images: Sequence[NDArray]) -> NDArray:
    """One minus the lowest of cleanvision's nine scores (N,) of images (H, W, 3), uint8 and BGR; higher = worse.

    Raises:
        ImportError: cleanvision is not installed.
    """
    try:
        from cleanvision import Imagelab
    except ImportError as error:
        raise ImportError(f'odd images are found by cleanvision: {INSTALL}') from error
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            cv2.imwrite(str(Path(folder, f'{i:06}.png')), image)
        lab = Imagelab(data_path=folder)
        lab.find_issues(n_jobs=1, verbose=False)
    return 1 - lab.issues.sort_index().filter(regex='_score$').min(axis=1).to_numpy()
