"""Weights that a test or a training reads: what fits, what trains anew, and what is refused."""

import http.server
import threading
import warnings
from functools import partial

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from tiny import tiny_vit

from mmebm.launch.checks.pretrained import check_load_from, check_pretrained, forget_pretrained
from mmebm.launch.checks.tested import check_tested
from mmebm.model_building import build

EBM = dict(type='mmebm.EBMAlgorithm', backbone=tiny_vit(), head=dict(type='mmebm.EnergyHead', in_channels=16))
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=tiny_vit(out_type='featmap'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=16, num_classes=3),
)
PATCHES = dict(
    type='mmebm.PatchEBM',
    backbone=tiny_vit() | dict(type='mmebm.PatchSubsetViT'),
    head=dict(type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(2, 2), patch_size=4, embed_dims=24),
)
RESNET = dict(type='mmebm.EBMAlgorithm', backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
              head=dict(type='mmebm.EnergyHead', in_channels=64))  # fmt: skip


def config(model, **options):
    cfg = Config(dict(model=model, load_from='a.pth'))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(model, content=lambda state: dict(state_dict=state), path='a.pth'):
    state = build(model).state_dict()
    torch.save(content(state), path)
    return state


@pytest.mark.parametrize('model', [EBM, CLASSIFIER, PATCHES, RESNET])
@pytest.mark.parametrize(
    'content',
    [
        lambda state: dict(state_dict=state),  # without meta, optimizer and message hub
        dict,
        lambda state: dict(state_dict={f'module.{key}': value for key, value in state.items()}),
        lambda state: dict(state_dict=state, ema_state_dict={'steps': torch.tensor(1)}, optimizer={}),
    ],
)
def test_own_weights_are_tested(model, content):
    save(model, content)
    check_tested(config(model))
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        check_load_from(config(model))


def test_what_mmpretrain_resizes_fits():
    save(EBM)
    check_tested(config(EBM, model__backbone__img_size=16))
    check_load_from(config(EBM, model__backbone__img_size=16))
    swin = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    swin = dict(type='SwinTransformer', arch=swin, img_size=64, pad_small_map=True)
    model = EBM | dict(backbone=swin, head=dict(type='mmebm.EnergyHead', in_channels=64))
    save(model)
    check_tested(config(model, model__backbone__img_size=96))


@pytest.mark.parametrize(
    'saved, tested, options, message',
    [
        (EBM, EBM, dict(model__backbone__patch_size=2), r'projection.weight \(16, 3, 4, 4\), not \(16, 3, 2'),
        (EBM, EBM, dict(model__backbone__arch__num_layers=1), r'unexpected: backbone\.layers\.1\.'),
        (EBM, EBM, dict(model__backbone__arch__num_layers=3), r'missing: backbone\.layers\.2\.'),
        (EBM, EBM, dict(model__backbone__arch__embed_dims=32, model__head__in_channels=32), r'\(1, 1, 16\), not'),
        (EBM, EBM, dict(model__head__kind='linear'), r'missing: head\.energies.*since its backbone fits'),
        (EBM, RESNET, {}, r'missing: backbone\.conv1\.weight.*unexpected: .*\(\d+ in all\).* Give the config'),
        (EBM, CLASSIFIER, {}, r'a\.pth holds .* missing: head\.fc\.weight, head\.fc\.bias; unexpected.*init_cfg\.type'),
        (CLASSIFIER, EBM, {}, r'missing: log_step_size, step_size_is_set, head\.energies'),
        (PATCHES, EBM, {}, r'missing: log_step_size'),
        (PATCHES, PATCHES, dict(model__head__num_layers=2), r'missing: head\..*1'),
        (CLASSIFIER, CLASSIFIER, dict(model__head__num_classes=4), r'head\.fc\.weight \(3, 16\), not \(4, 16\)'),
        (tiny_vit(), EBM, {}, r'missing: .*unexpected: cls_token'),
    ],
)  # fmt: skip
def test_other_weights_are_not_tested(saved, tested, options, message):
    save(saved)
    with pytest.raises(ValueError, match=message):
        check_tested(config(tested, **options))


def test_the_averaged_model_of_test_time_augmentation():
    save(CLASSIFIER)
    check_tested(config(dict(type='AverageClsScoreTTA', module=CLASSIFIER)))
    with pytest.raises(ValueError, match=r'head\.fc\.weight \(3, 16\), not \(5, 16\)'):
        check_tested(config(dict(type='AverageClsScoreTTA', module=CLASSIFIER), model__module__head__num_classes=5))


@pytest.mark.parametrize('check', [check_tested, check_load_from])
def test_weights_where_mmengine_does_not_look(check):
    state = save(EBM, lambda state: dict(model=state))
    with pytest.raises(ValueError, match=r'a\.pth holds its weights under "model", where mmengine .* torch\.save'):
        check(config(EBM))
    save_file(state, 'a.safetensors')
    with pytest.raises(ValueError, match=r'as safetensors, where mmengine does not'):
        check(config(EBM, load_from='a.safetensors'))


@pytest.mark.parametrize('path', ['', None])
def test_no_weights_to_test(path):
    with pytest.raises(ValueError, match='no checkpoint to test: load_from is empty'):
        check_tested(config(EBM, load_from=path))


def test_downloaded_weights(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'cache'))
    save(CLASSIFIER)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/a.pth'
    try:
        check_tested(config(CLASSIFIER, load_from=url))
        with pytest.raises(ValueError, match=r'missing: log_step_size'):
            check_tested(config(EBM, load_from=url))
        with pytest.raises(ValueError, match='of another architecture than ResNet'):
            check_pretrained(config(RESNET, model__backbone__init_cfg=dict(type='Pretrained', checkpoint=url)))
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    'saved, trained, options, message',
    [
        (EBM, EBM, dict(model__backbone__patch_size=2), r"than the config's VisionTransformer: .*\(16, 3, 4, 4\), not"),
        (EBM, EBM, dict(model__backbone__arch__num_layers=1), r'unexpected: backbone\.layers\.1\.'),
        (EBM, RESNET, {}, r"a\.pth is of another architecture than the config's ResNet: missing: backbone\.conv1"),
        (EBM, CLASSIFIER, dict(model__backbone__patch_size=2), r'another architecture'),
        (CLASSIFIER, PATCHES, dict(model__backbone__arch__num_layers=3), r'missing: backbone\.layers\.2'),
        (tiny_vit(), EBM, {}, r'nothing under "backbone\."; a backbone alone is for model\.backbone\.init_cfg'),
        (
            EBM,
            EBM,
            dict(model__head__kind='linear'),
            r'another energy .* backbone alone, give, in place of load_from, --',
        ),
    ],
)
def test_training_starts_from_no_other_backbone_and_no_part_of_an_energy(saved, trained, options, message):
    save(saved)
    with pytest.raises(ValueError, match=message):
        check_load_from(config(trained, **options))


@pytest.mark.parametrize(
    'saved, trained, options, message',
    [
        (EBM, CLASSIFIER, {}, r'a\.pth .* train anew: missing: head\.fc\.weight, head\.fc\.bias$'),
        (CLASSIFIER, EBM, {}, r'train anew: missing: log_step_size, step_size_is_set, head\.energies'),
        (EBM, PATCHES, {}, r'train anew: missing: head\.'),
        (CLASSIFIER, CLASSIFIER, dict(model__head__num_classes=4), r'head\.fc\.weight \(3, 16\), not \(4, 16\)'),
    ],
)
def test_what_trains_anew_is_named(saved, trained, options, message):
    save(saved)
    with pytest.warns(UserWarning, match=message):
        check_load_from(config(trained, **options))


def test_initial_weights_of_every_part():
    init = dict(type='Pretrained', checkpoint='a.pth', prefix='head.')
    head = dict(type='mmebm.EnergyHead', in_channels=16)
    model = CLASSIFIER | dict(type='mmebm.EnergyClassifier', energy_head=head | dict(init_cfg=init))
    model['backbone'] = model['backbone'] | dict(frozen_stages=2, out_type='raw')
    save(EBM)
    check_pretrained(config(model))
    with pytest.raises(ValueError, match=r'a\.pth is of another architecture than EnergyHead: missing: energies'):
        check_pretrained(config(model, model__energy_head__kind='linear'))
    whole = CLASSIFIER | dict(pretrained='a.pth')
    with pytest.warns(UserWarning, match=r'train anew: missing: head\.fc'):
        check_pretrained(config(whole))
    with pytest.raises(ValueError, match=r"than the config's VisionTransformer: of another shape"):
        check_pretrained(config(whole, model__backbone__patch_size=2))


def test_a_forgotten_prefix_is_named():
    save(EBM)
    cfg = config(CLASSIFIER, model__backbone__init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    with pytest.raises(ValueError, match=r'The network in it is under "backbone\.": set init_cfg\.prefix=backbone\.'):
        check_pretrained(cfg)


def test_a_missing_file_is_named_with_its_key_and_not_missed_by_a_resumed_training():
    init = dict(type='Pretrained', checkpoint='gone.pth', prefix='backbone.')
    cfg = config(CLASSIFIER, model__backbone__init_cfg=[dict(type='Kaiming', layer='Conv2d'), init])
    with pytest.raises(FileNotFoundError, match=r'gone\.pth": set .* model\.backbone\.init_cfg\.1\.checkpoint=FILE'):
        check_pretrained(cfg)
    cfg.model.pretrained = 'gone.pth'
    forget_pretrained(cfg)
    assert cfg.model.backbone.init_cfg is cfg.model.pretrained is None
    check_pretrained(cfg)


def test_an_auxiliary_head_is_not_tested():
    pytest.importorskip('mmseg')
    head = dict(type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=3, norm_cfg=dict(type='BN'))
    backbone = tiny_vit(out_type='featmap', out_indices=[0, 1]) | dict(type='mmpretrain.VisionTransformer')
    model = dict(type='EncoderDecoder', backbone=backbone, decode_head=head, auxiliary_head=head | dict(in_index=0))
    state = build(model, 'mmseg').state_dict()
    torch.save(dict(state_dict={k: v for k, v in state.items() if not k.startswith('auxiliary')}), 'a.pth')
    check_tested(config(model, default_scope='mmseg'))
    with pytest.raises(ValueError, match=r'decode_head\.conv_seg\.weight \(3, 8, 1, 1\), not \(4, 8, 1, 1\)'):
        check_tested(config(model, default_scope='mmseg', model__decode_head__num_classes=4))
