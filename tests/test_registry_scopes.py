"""`mmebm.X` builds in every package, each in a fresh process that has imported nothing of mmebm but its root."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

BASES = {
    'mmpretrain': 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py',
    'mmseg': 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    'mmdet': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
}
SCRIPT = """
import importlib, json, sys
import mmebm
from mmengine.config import Config
from mmengine.registry import DefaultScope

scope, config = sys.argv[1:]
registries = importlib.import_module(f'{scope}.registry')
names = 'environment mmcv_ext_finder config_files config_data config_tree error_text upstream'
light = {f'mmebm.{name}' for name in names.split()}
heavy = 'mmebm.upstream.quiet_imports'
early = sorted(name for name in sys.modules if name.startswith('mmebm.')
               and (name == heavy or (name not in light and not name.startswith('mmebm.upstream.'))))
vit = dict(type='mmpretrain.VisionTransformer', img_size=32, patch_size=8, out_type='raw',
           arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32))
with DefaultScope.overwrite_default_scope(scope):
    built = [
        registries.MODELS.build(
            dict(type='mmebm.EBMAlgorithm', backbone=vit, head=dict(type='mmebm.EnergyHead', in_channels=16))
        ),
        registries.TRANSFORMS.build(dict(type='mmebm.PatchMask', patch_size=8)),
        registries.DATASETS.build(dict(type='mmebm.Shapes', size=2, image_size=32)),
        registries.METRICS.build(dict(type='mmebm.RestorationMetric')),
        registries.HOOKS.build(dict(type='mmebm.NonFiniteLossHook')),
    ]
    corrupted = built[1](built[2][0])['corruption']
cfg = Config.fromfile(config)
print('RESULT', json.dumps(dict(early=early, built=[type(x).__name__ for x in built], corrupted=corrupted,
                                scope=cfg.default_scope, type=cfg.model.type)))
"""


@pytest.mark.parametrize('scope', BASES)
def test_builds_and_inherits_under_the_default_scope(scope, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {BASES[scope]!r}\n')
    command = [sys.executable, '-c', SCRIPT, scope, str(config)]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('RESULT '))
    assert json.loads(line.removeprefix('RESULT ')) == dict(
        early=[],
        built=['EBMAlgorithm', 'PatchMask', 'Shapes', 'RestorationMetric', 'NonFiniteLossHook'],
        corrupted='mask',
        scope=scope,
        type={'mmpretrain': 'MAE', 'mmseg': 'EncoderDecoder', 'mmdet': 'MaskRCNN'}[scope],
    )
