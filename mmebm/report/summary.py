"""What a run came to, in a row; which of its curves means progress; and what it lacks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmebm.model_building import type_name
from mmebm.report.charts import OF_PATCHES
from mmebm.report.run import Run

NO_ENERGY = {
    'PatchEBM': 'PatchEBM has no energy of whole images: what is shown is that of the missing patches, given the '
    'visible ones.',
    'CIM': 'CIM has no energy, so that there is no energy to show.',
}


def row(run: Run) -> dict[str, str]:
    """The main figures of a run, by their names; a dash stands for what was not measured."""
    cfg: dict[str, Any] = run.cfg.to_dict() if run.cfg else {}
    model = cfg.get('model') or {}
    unit, last = run.position
    length = (cfg.get('train_cfg') or {}).get(f'max_{unit}s'.replace('iterations', 'iters'))
    values = run.curves['evaluation']
    gains = [f'{name} {gain:+.2f} dB' for name, gain in _gains(run).items()]
    return {
        'method': type_name(model) or '-',
        'backbone': _words(model.get('backbone') or {}, ('model_name', 'arch')),
        'data': _words((cfg.get('train_dataloader') or {}).get('dataset') or {}, ('data_root',)),
        'length': f'{last} of {length} {unit}s' if length else f'{last} {unit}s',
        'restoration gains': _listed(run, gains),
        'AUROC of the energy': _listed(run, _aurocs(run, '(?:held_out|energy)', 'auroc')),
        'AUROC of the energies of patches': _listed(run, _aurocs(run, OF_PATCHES, '(?:token_)?auroc')),
        'linear probe': _from_to(values.get('frozen/linear_top1')),
        'kNN': _from_to(values.get('frozen/knn_top1')),
        'RankMe': _from_to(values.get('frozen/rankme'), unit=''),
        'images per second': _speed(run, cfg),
        'peak memory': _peak_memory(run),
    }


def verdict(run: Run) -> str:
    """Which curve of this run means progress, and whether it moved."""
    values = run.curves['evaluation']
    parts = []
    gains = _gains(run)
    if gains:
        better = sorted(name for name, gain in gains.items() if gain > 0.1)
        which = f': {", ".join(better)}' if better else ''
        parts.append(
            f'Restored images are closer to the clean ones than the corrupted ones, by more than 0.1 dB, for '
            f'{len(better)} of {len(gains)} corruptions{which}.'
        )
    probe = values.get('frozen/linear_top1')
    if probe and len(probe) > 1:
        change = probe[-1][1] - probe[0][1]
        said = 'The features have improved' if change > 1 else 'The features have not improved'
        parts.append(f'{said}: linear probe {probe[0][1]:.1f}% at the start, {probe[-1][1]:.1f}% at the end.')
    rank = values.get('frozen/rankme')
    if rank and len(rank) > 1 and not probe:
        parts.append(
            f'RankMe {rank[0][1]:.1f} at the start, {rank[-1][1]:.1f} at the end: that many dimensions the features '
            'span, which is no substitute for a probe of labelled images.'
        )
    return ' '.join(parts) or 'Nothing was measured on images: the log does not tell whether it learns.'


def lacks(run: Run) -> Iterator[str]:
    """Sentences on what a report could show and this run does not have, and what would make it."""
    values = run.curves['evaluation']
    kind = type_name((run.cfg or {}).get('model') or {})
    if kind in NO_ENERGY:
        yield NO_ENERGY[kind]
    if not run.restorations:
        yield "No pictures and energies: dict(type='mmebm.RestorationProgressHook') in custom_hooks makes them."
    elif not any(entry['folder'].is_dir() for entry in run.restorations):
        yield "No pictures: they are written by dict(type='LocalVisBackend') in vis_backends."
    elif _shows_training_images(run):
        yield (
            'The images shown are from training, not held out: val/ beside train/ for mmebm-pretrain, or '
            'test_data_root, names others.'
        )
    if not any(name.startswith('frozen/') for name in values):
        yield 'No probe of the features: mmebm.FrozenFeatureHook measures one, or RankMe if there are no labels.'
    if 'memory' not in run.curves['iteration']:
        yield 'No memory: mmengine logs it on GPUs only.'
    if not any(True for _ in run.tables):
        yield 'No downstream tables: tools/evaluate.py --work-dir FOLDER with a folder in this work dir adds them.'


def _shows_training_images(run: Run) -> bool:
    return any('training images' in entry.get('source', '') for entry in run.restorations)


def _aurocs(run: Run, metric: str, number: str) -> list[str]:
    return [f'{name} {value:.3f}' for name, value in _last(run, metric, number).items()]


def _listed(run: Run, values: list[str]) -> str:
    """What was measured of the corruptions, and on which images if they were trained on."""
    if not values:
        return '-'
    return ', '.join(values) + (' (training images)' if _shows_training_images(run) else '')


def _gains(run: Run) -> dict[str, float]:
    """By corruption, the PSNR of restored images above that of corrupted ones, in dB."""
    before = _last(run, '(?:held_out|restoration)', 'psnr_corrupted_db')
    after = _last(run, '(?:held_out|restoration)', 'psnr_restored_db')
    return {name: value - before[name] for name, value in after.items() if name in before}


def _last(run: Run, metric: str, number: str) -> dict[str, float]:
    """By corruption, the last value; that of ``RestorationProgressHook``, where there are two."""
    found: dict[str, float] = {}
    for name, points in sorted(run.curves['evaluation'].items(), key=lambda item: not item[0].startswith('held_out')):
        match = re.fullmatch(f'{metric}/(.+)/{number}', name)
        if match:
            found.setdefault(match[1], points[-1][1])
    return dict(sorted(found.items()))


def _words(node: dict[str, Any], keys: tuple[str, ...]) -> str:
    found = [str(node[key]) for key in keys if isinstance(node.get(key), (str, Path))]
    return ' '.join([type_name(node) or '-', *found])


def _from_to(points: list | None, unit: str = '%') -> str:
    if not points:
        return '-'
    ends = points[:1] if len(points) == 1 else [points[0], points[-1]]
    return ' → '.join(f'{value:.1f}{unit}' for _, value in ends)


def _speed(run: Run, cfg: dict[str, Any]) -> str:
    times = sorted(value for _, value in run.curves['iteration'].get('time', []))
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    if not times or not batch:
        return '-'
    processes = int(run.environment.get('GPU number', 1))
    return f'{batch * processes / times[len(times) // 2]:.1f} (median)'


def _peak_memory(run: Run) -> str:
    memory = run.curves['iteration'].get('memory')
    return f'{max(value for _, value in memory):.0f} MiB' if memory else 'not measured on a CPU'
