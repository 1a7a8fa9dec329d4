"""Figures of restorations and of training curves, as files."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample

from mmebm.pixels import PEAK

ROWS = ('clean', 'corrupted', 'restored')


def plot_restorations(
    samples: Mapping[str, Sequence[DataSample]], path: str | Path, rows: Sequence[str] = ROWS
) -> None:
    """Draw images and what was predicted from them, some rows for each group.

    Args:
        samples: Data samples of a model's ``predict`` by corruption or another name of a group, the same number for
            each; images with three channels are RGB, in pixel units.
        path: The file to write; its suffix sets the format.
        rows: Fields of the samples; a group has a row for each that its samples have.
    """
    columns = max(len(group) for group in samples.values())
    drawn = {name: [row for row in rows if row in group[0]] for name, group in samples.items()}
    heights = [1.25 * len(fields) for fields in drawn.values()]
    figure = Figure(figsize=(1.2 * columns + 1, sum(heights)), layout='constrained')
    groups = np.atleast_1d(figure.subfigures(len(samples), 1, height_ratios=heights))
    for group, (name, members) in zip(groups, samples.items(), strict=True):
        group.suptitle(name)
        axes = group.subplots(len(drawn[name]), columns, squeeze=False)
        for row, field in enumerate(drawn[name]):
            axes[row, 0].set_ylabel(field.replace('_', ' '))
            for axis, sample in zip(axes[row], members, strict=False):
                axis.imshow(to_picture(sample.get(field)), cmap='gray', vmin=0, vmax=PEAK)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def plot_curves(history: MessageHub, path: str | Path) -> None:
    """Draw loss, PSNR and energies over a training run.

    Args:
        history: The runner's message hub, also stored in checkpoints. Read are ``train/loss``, the validation results
            of ``RestorationMetric`` (PSNR in dB) and the scalars of ``EnergyLogHook``; a panel without data stays
            empty.
        path: The file to write; its suffix sets the format.
    """
    figure = Figure(figsize=(14, 4.5), layout='constrained')
    loss, psnr, energy = figure.subplots(1, 3)
    iterations = len(scalars(history, 'train/loss'))
    window = max(1, iterations // 50)
    smooth = np.convolve(scalars(history, 'train/loss'), np.ones(window) / window, mode='valid')
    loss.plot(np.arange(len(smooth)) + window, smooth)
    loss.set(title=f'Training loss (mean of {window})', xlabel='iteration', yscale='log')

    for name in history.log_scalars:
        if name.startswith('val/') and name.endswith('/psnr_restored_db'):
            values = scalars(history, name)
            epochs = np.linspace(iterations / len(values), iterations, len(values))
            (line,) = psnr.plot(epochs, values, marker='.', label=name.split('/')[-2])
            psnr.axhline(scalars(history, name.replace('restored', 'corrupted'))[0], color=line.get_color(), ls=':')
    psnr.set(title='Held-out PSNR (dotted: before restoration)', xlabel='iteration', ylabel='dB')

    for name in ('clean', 'corrupted', 'restored'):
        values = scalars(history, f'train/energy_{name}')
        energy.plot(np.linspace(0, iterations, len(values)), values, label=name)
    energy.set(title='Mean energy of the batch', xlabel='iteration')
    for axes in (psnr, energy):
        if axes.lines:
            axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.15), ncols=5, frameon=False)
    figure.savefig(path, dpi=110)


def draw_energies(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> np.ndarray:
    """Histograms of the energies of clean and corrupted images, a panel per corruption, as a picture (H, W, 3), uint8.

    Args:
        groups: By corruption, the energies ``clean`` and ``corrupted``; a group without them is left out.
    """
    groups = {name: group for name, group in groups.items() if 'clean' in group}
    figure = Figure(figsize=(3.2 * len(groups), 2.6), layout='constrained', dpi=100)
    for axes, (name, group) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        values = [[*filter(math.isfinite, group[kind])] for kind in ('clean', 'corrupted')]
        axes.hist(values, bins=20, histtype='stepfilled', alpha=0.6, label=['clean', 'corrupted'])
        axes.set(title=name, xlabel='energy', yticks=[])
    axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def scalars(history: MessageHub, name: str) -> np.ndarray:
    """All logged values of a scalar, in order; empty if it was never logged."""
    return history.get_scalar(name).data[0] if name in history.log_scalars else np.zeros(0)


def to_picture(image) -> np.ndarray:
    """An image (C, H, W) in pixel units as uint8: (H, W, 3) if C = 3, else the mean over channels, (H, W)."""
    array = image.detach().cpu().numpy()
    array = array.transpose(1, 2, 0) if len(array) == 3 else array.mean(axis=0)
    return np.clip(np.rint(array), 0, PEAK).astype(np.uint8)
