"""Feature parity of every backbone in every library that has it, and weights there and back."""

import json
import runpy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from randomized import BACKBONES, NORMALISATION, randomize, save_checkpoint
from safetensors.torch import load_file
from torch import nn

from mmebm.checkpoint import part, read_checkpoint
from mmebm.interchange import UnsupportedError, export, import_weights
from mmebm.interchange.library import MERGED
from mmebm.interchange.openmmlab import dense_outputs
from mmebm.interchange.source import AS_LOADED, FROM_BGR, read_source
from mmebm.model_building import build

LIBRARIES = ('timm', 'hf', 'torchvision')
VIT, SWIN, CONVNEXT, RESNET = BACKBONES.values()
ARCH = VIT['arch']

# Backbones beside the plain ones, and the libraries that have them.
VARIANTS = {
    'vit-sincos': (VIT | dict(type='mmebm.SinCosViT'), LIBRARIES),
    'vit-layer-scale': (VIT | dict(layer_scale_init_value=1e-5), ('timm', 'hf')),
    'vit-no-class-token': (VIT | dict(with_cls_token=False), ('timm',)),
    'vit-no-qkv-bias': (VIT | dict(qkv_bias=False), ('timm', 'hf')),
    'vit-no-final-norm': (VIT | dict(final_norm=False), ('timm',)),
    'vit-pre-norm': (VIT | dict(pre_norm=True), ('timm',)),
    'vit-eps': (VIT | dict(norm_cfg=dict(type='LN', eps=1e-3)), ('hf',)),
    'vit-oblong': (VIT | dict(img_size=(32, 48)), ('timm', 'hf')),
    'vit-hidden-that-rounds': (
        VIT | dict(arch=ARCH | dict(embed_dims=96, num_heads=3, feedforward_channels=100)),
        LIBRARIES,
    ),
    'vit-padded': (VIT | dict(img_size=36), ()),
    'vit-overlapping': (VIT | dict(patch_cfg=dict(kernel_size=12, padding=2)), ()),
    'vit-one-channel': (VIT | dict(in_channels=1), ('timm', 'hf')),
    'swin-all-stages': (SWIN | dict(out_indices=(0, 1, 2, 3)), LIBRARIES),
    'swin-small-maps': (SWIN | dict(img_size=64, pad_small_map=True), ('timm',)),
    'swin-absolute-positions': (SWIN | dict(use_abs_pos_embed=True), ()),
    'convnext-convolutions': (CONVNEXT | dict(linear_pw_conv=False), LIBRARIES),
    'convnext-all-stages': (CONVNEXT | dict(out_indices=(0, 1, 2, 3)), LIBRARIES),
    'convnext-v2': (CONVNEXT | dict(use_grn=True, layer_scale_init_value=0.0), ('timm', 'hf')),
    'convnext-no-scale': (CONVNEXT | dict(layer_scale_init_value=0.0), ('timm', 'hf')),
    'resnet-18': (RESNET | dict(depth=18), LIBRARIES),
    'resnet-narrow': (RESNET | dict(base_channels=8), ('timm', 'hf')),
    'resnet-caffe': (RESNET | dict(style='caffe'), ()),
}


def run(tmp_path, backbone, to, **options):
    """Export; the result, and the features of the backbone and of what ``load.py`` loads are compared by then."""
    save_checkpoint(tmp_path / 'epoch_1.pth', backbone)
    return export(tmp_path / 'epoch_1.pth', to, tmp_path / to, **options)


def size_of(backbone):
    return 64 if 'img_size' not in backbone else None


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('to', [*LIBRARIES, 'mmpretrain', 'mmseg', 'mmdet'])
def test_the_same_features(tmp_path, kind, to):
    result = run(tmp_path, BACKBONES[kind], to, image_size=size_of(BACKBONES[kind]))
    assert result.difference < 1e-4 and 0.5 < result.magnitude < 20 and result.left_out == []
    assert {file.parent for file in result.files} == {tmp_path / to}


@pytest.mark.slow
@pytest.mark.parametrize('to', LIBRARIES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_are_exported_or_refused(tmp_path, variant, to):
    backbone, libraries = VARIANTS[variant]
    if to in libraries:
        assert run(tmp_path, backbone, to, image_size=size_of(backbone)).difference < 1e-4
        return
    with pytest.raises(UnsupportedError, match=r'(timm|transformers|torchvision) has no .* with '):
        run(tmp_path, backbone, to, image_size=size_of(backbone))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_1.pth']  # and nothing left behind


def test_norms_of_other_outputs_are_named(tmp_path):
    result = run(tmp_path, SWIN | dict(out_indices=(1, 3)), 'timm')
    assert result.left_out == ['norm1.weight', 'norm1.bias']
    result = export(tmp_path / 'epoch_1.pth', 'mmseg', tmp_path / 'mmseg')  # which has them
    assert result.left_out == [] and 'norm1.bias' in part(read_checkpoint(tmp_path / 'mmseg' / 'backbone.pth'))


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('to', LIBRARIES)
def test_there_and_back_is_bitwise_the_same(tmp_path, kind, to):
    backbone = BACKBONES[kind]
    model = save_checkpoint(tmp_path / 'epoch_1.pth', backbone)
    weights = tmp_path / to / ('model.pth' if to == 'torchvision' else 'model.safetensors')
    export(tmp_path / 'epoch_1.pth', to, tmp_path / to, image_size=size_of(backbone))
    assert import_weights(weights, to, backbone, tmp_path / 'back.pth') == []
    back = part(read_checkpoint(tmp_path / 'back.pth'))
    assert {key: back[key].equal(value) for key, value in model.state_dict().items()} == dict.fromkeys(back, True)


def test_layer_scale_there_and_back_through_dinov2_of_transformers(tmp_path):
    backbone = VARIANTS['vit-layer-scale'][0]
    run(tmp_path, backbone, 'hf')
    assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['model_type'] == 'dinov2'
    import_weights(tmp_path / 'hf' / 'model.safetensors', 'hf', backbone, tmp_path / 'back.pth')
    ours, back = (part(read_checkpoint(tmp_path / name)) for name in ('epoch_1.pth', 'back.pth'))
    assert all(back[key].equal(value) for key, value in ours.items())


def test_merged_positions_change_their_order():
    ours = torch.arange(8.0)  # 2 channels of 2 x 2 positions
    assert MERGED.to_theirs(ours).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert MERGED.to_ours(MERGED.to_theirs(ours)).equal(ours)


@pytest.mark.parametrize('to', LIBRARIES)
def test_a_wrong_order_is_noticed_and_nothing_is_written(tmp_path, monkeypatch, to):
    for family in ('timm_models', 'hf_models', 'torchvision_models'):
        names = __import__(f'mmebm.interchange.{family}', fromlist=['x']).SWIN_NAMES
        renames = [rename._replace(layout=type(rename.layout)(torch.clone, torch.clone)) for rename in names.renames]
        monkeypatch.setattr(names, 'renames', renames)
    with pytest.raises(ValueError, match=r'features of the exported SwinTransformer differ by up to \d'):
        run(tmp_path, SWIN, to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_1.pth']


@pytest.mark.parametrize('to', LIBRARIES)
def test_position_embeddings_are_resized(tmp_path, to):
    result = run(tmp_path, VIT, to, image_size=48)
    assert result.image_size == (48, 48) and result.difference < 1e-4
    model = runpy.run_path(str(tmp_path / to / 'load.py'))['model']
    (length,) = (value.shape[1] for key, value in model.state_dict().items() if 'pos' in key)
    assert length == 37


def test_resized_for_mmseg_loads_into_its_config(tmp_path):
    run(tmp_path, VIT | dict(arch=ARCH | dict(num_layers=4)), 'mmseg', image_size=64)
    cfg = Config.fromfile(tmp_path / 'mmseg' / 'backbone.py').model.backbone
    assert cfg.img_size == 64 and cfg.out_type == 'featmap' and list(cfg.out_indices) == [0, 1, 2, 3]
    assert cfg.init_cfg == dict(
        type='Pretrained', checkpoint=str(tmp_path / 'mmseg' / 'backbone.pth'), prefix='backbone.'
    )
    assert read_checkpoint(cfg.init_cfg.checkpoint).state['backbone.pos_embed'].shape == (1, 65, 32)


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize(
    ('head', 'neck'),
    [
        ('LinearClsHead', ''),
        ('LinearClsHead', "neck=dict(type='LinearNeck'),"),
        ('VisionTransformerClsHead', 'neck=None,'),
    ],
)
def test_the_lines_for_mmpretrain_make_a_classifier(tmp_path, name, head, neck):
    run(tmp_path, BACKBONES[name], 'mmpretrain')
    (tmp_path / 'base.py').write_text(
        f"model = dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', arch='b'), {neck}\n"
        f"             head=dict(type='{head}', num_classes=5, in_channels=768))\n"
    )
    lines = (tmp_path / 'mmpretrain' / 'backbone.py').read_text()
    (tmp_path / 'mine.py').write_text(f"_base_ = './base.py'\n{lines}")
    cfg = Config.fromfile(tmp_path / 'mine.py')
    model = build(cfg.model, 'mmpretrain')
    model.init_weights()
    model.eval()
    source = read_source(tmp_path / 'epoch_1.pth')
    images = torch.randn(2, 3, *source.image_size)
    assert model(images).shape == (2, 5)
    features = source.features(images)[:, 1 if name == 'VisionTransformer' else 0 :]  # without the class token
    pooled = model.extract_feat(images, stage='neck')[-1]
    torch.testing.assert_close(pooled, features.mean(dim=1), atol=1e-5, rtol=0)


def test_timm_pools_the_patches(tmp_path):
    import timm

    run(tmp_path, VIT, 'timm')
    source = read_source(tmp_path / 'epoch_1.pth')
    images = torch.randn(2, 3, *source.image_size)
    model = timm.create_model(f'local-dir:{tmp_path / "timm"}', pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), source.features(images)[:, 1:].mean(dim=1), atol=1e-4, rtol=0)


def test_normalization_travels(tmp_path):
    from transformers import AutoImageProcessor

    run(tmp_path, VIT, 'timm')
    pretrained_cfg = json.loads((tmp_path / 'timm' / 'config.json').read_text())['pretrained_cfg']
    export(tmp_path / 'epoch_1.pth', 'hf', tmp_path / 'hf')
    processor = AutoImageProcessor.from_pretrained(tmp_path / 'hf')
    for mean, std in ((pretrained_cfg['mean'], pretrained_cfg['std']), (processor.image_mean, processor.image_std)):
        assert [255 * x for x in mean] == pytest.approx(NORMALISATION['mean'])
        assert [255 * x for x in std] == pytest.approx(NORMALISATION['std'])


def text_for_users(folder):
    """All that the Python files in a folder say, in one line."""
    return ' '.join(' '.join(path.read_text() for path in folder.glob('*.py')).split())


@pytest.mark.parametrize('to', [*LIBRARIES, 'mmpretrain', 'mmseg', 'mmdet'])
def test_only_an_unknown_order_of_channels_is_noted(tmp_path, to):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT, to_rgb=False)
    assert export(tmp_path / 'epoch_1.pth', to, tmp_path / 'unknown').note == AS_LOADED
    assert AS_LOADED in text_for_users(tmp_path / 'unknown')
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT, to_rgb=True)
    assert export(tmp_path / 'epoch_1.pth', to, tmp_path / 'rgb').note == ''
    assert 'BGR' not in text_for_users(tmp_path / 'rgb')
    if to != 'torchvision':  # which has none of one channel
        save_checkpoint(tmp_path / 'epoch_1.pth', VIT | dict(in_channels=1), to_rgb=False)
        assert export(tmp_path / 'epoch_1.pth', to, tmp_path / 'grey').note == ''


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('to', [*LIBRARIES, 'mmpretrain', 'mmseg', 'mmdet'])
def test_trained_on_bgr_it_takes_rgb(tmp_path, kind, to):
    save_checkpoint(tmp_path / 'epoch_1.pth', BACKBONES[kind], to_rgb=False)
    path, size = tmp_path / 'epoch_1.pth', size_of(BACKBONES[kind])
    result = export(path, to, tmp_path / to, image_size=size, channels='bgr')
    assert result.difference < 1e-4 and result.note == FROM_BGR
    assert FROM_BGR in text_for_users(tmp_path / to)


def test_an_rgb_image_has_the_features_that_its_bgr_twin_had(tmp_path):
    backbone = save_checkpoint(tmp_path / 'epoch_1.pth', VIT, to_rgb=False)
    backbone.eval()
    export(tmp_path / 'epoch_1.pth', 'timm', tmp_path / 'timm', channels='bgr')
    exported = runpy.run_path(str(tmp_path / 'timm' / 'load.py'))['model'].eval()
    normalization = json.loads((tmp_path / 'timm' / 'config.json').read_text())['pretrained_cfg']
    rgb = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(normalization[key]).view(3, 1, 1) for key in ('mean', 'std'))
    trained_mean, trained_std = (torch.tensor(NORMALISATION[key]).view(3, 1, 1) for key in ('mean', 'std'))
    expected = backbone((255 * rgb.flip(1) - trained_mean) / trained_std)[-1]
    torch.testing.assert_close(exported.forward_features((rgb - mean) / std), expected, rtol=1e-4, atol=1e-4)


def test_mean_and_deviation_of_transformers_are_reversed_too(tmp_path):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT, to_rgb=False)
    export(tmp_path / 'epoch_1.pth', 'hf', tmp_path / 'hf', channels='bgr')
    processor = json.loads((tmp_path / 'hf' / 'preprocessor_config.json').read_text())
    assert [255 * x for x in processor['image_mean']] == pytest.approx(NORMALISATION['mean'][::-1])
    assert [255 * x for x in processor['image_std']] == pytest.approx(NORMALISATION['std'][::-1])


@pytest.mark.parametrize(
    ('backbone', 'to_rgb', 'message'),
    [
        (VIT, True, r'has converted BGR to RGB \(to_rgb=True\)'),
        (VIT | dict(in_channels=1), False, 'images of 1 channels are not BGR'),
        (CONVNEXT | dict(arch=CONVNEXT['arch'] | dict(channels=[8, 3, 24, 32])), False, 'this ConvNeXt has 4 of them'),
    ],
)
def test_what_cannot_be_reversed_is_refused(tmp_path, backbone, to_rgb, message):
    save_checkpoint(tmp_path / 'epoch_1.pth', backbone, to_rgb=to_rgb)
    with pytest.raises(ValueError, match=f'--channels bgr.*{message}'):
        export(tmp_path / 'epoch_1.pth', 'timm', tmp_path / 'timm', channels='bgr')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_1.pth']


def test_foreign_backbones_take_rgb_too(tmp_path):
    """Those that go back to their own library."""
    timm = dict(type='TIMMBackbone', model_name='convnext_tiny', features_only=True, depths=(1, 1, 1, 1), dims=(8,) * 4)
    vit = dict(model_type='vit', hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    hf = dict(type='mmebm.HuggingFaceBackbone', config=vit | dict(image_size=224, patch_size=32))
    for to, backbone in (('timm', timm), ('hf', hf)):
        save_checkpoint(tmp_path / 'epoch_1.pth', backbone, to_rgb=False)
        result = export(tmp_path / 'epoch_1.pth', to, tmp_path / to, channels='bgr')
        assert result.difference < 1e-4 and FROM_BGR in text_for_users(tmp_path / to)


def test_a_backbone_of_timm_goes_back_to_timm(tmp_path):
    arch = dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 32))
    backbone = dict(type='TIMMBackbone', model_name='convnext_tiny', features_only=True, **arch)
    model = save_checkpoint(tmp_path / 'epoch_1.pth', backbone)
    assert export(tmp_path / 'epoch_1.pth', 'timm', tmp_path / 'timm', image_size=None).difference == 0
    state = load_file(tmp_path / 'timm' / 'model.safetensors')
    assert {f'timm_model.{key}' for key in state} == set(model.state_dict())
    with pytest.raises(UnsupportedError, match='A TIMMBackbone cannot be exported to torchvision'):
        export(tmp_path / 'epoch_1.pth', 'torchvision', tmp_path / 'torchvision')


@pytest.mark.parametrize('size', [64, 224])
def test_a_backbone_of_transformers_goes_back_to_transformers(tmp_path, size):
    config = dict(model_type='vit', hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    backbone = dict(type='mmebm.HuggingFaceBackbone', config=config | dict(image_size=size, patch_size=32))
    save_checkpoint(tmp_path / 'epoch_1.pth', backbone)
    assert export(tmp_path / 'epoch_1.pth', 'hf', tmp_path / 'hf').difference < 1e-4
    assert export(tmp_path / 'epoch_1.pth', 'mmdet', tmp_path / 'mmdet').difference == 0


def test_the_config_finds_its_checkpoint_at_a_path_with_blanks(tmp_path):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT)
    out = tmp_path / 'backbones of epoch one hundred' / 'for a classifier of photographs of my own that I took myself'
    (config,) = [file for file in export(tmp_path / 'epoch_1.pth', 'mmpretrain', out).files if file.suffix == '.py']
    assert Config.fromfile(config).model.backbone.init_cfg.checkpoint == str(out / 'backbone.pth')


@pytest.mark.parametrize(
    ('to', 'packages'), [('onnx', 'onnx onnxscript onnxruntime'), ('timm', 'timm'), ('hf', 'transformers')]
)
def test_missing_packages_are_named(tmp_path, monkeypatch, to, packages):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=f'needs {packages.split()[0]}.*: pip install {packages}$'):
        run(tmp_path, VIT, to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_1.pth']


@pytest.mark.parametrize('format', ['mae', 'dinov2'])
def test_original_checkpoints_start_a_vit(tmp_path, format):
    """In the names of facebookresearch/mae and facebookresearch/dinov2, at another image size."""
    backbone = VIT | dict(img_size=48, layer_scale_init_value=1e-5 if format == 'dinov2' else 0.0)
    original = randomize(build(backbone))
    theirs = {
        'layers.': 'blocks.', '.ln1': '.norm1', '.ln2': '.norm2', 'ln1.': 'norm.', 'projection': 'proj',
        'attn.gamma1.weight': 'ls1.gamma', 'ffn.gamma2.weight': 'ls2.gamma',
        'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2', 'ffn.blocks.0.0': 'mlp.fc1', 'ffn.blocks.1': 'mlp.fc2',
    }  # fmt: skip
    state = {'mask_token': torch.zeros(1, 1, 32), 'decoder_blocks.0.norm1.weight': torch.ones(4)}
    for key, value in original.state_dict().items():
        for old, new in theirs.items():
            key = key.replace(old, new)
        state[key] = value
    torch.save(dict(model=state) if format == 'mae' else state, tmp_path / 'theirs.pth')
    left_out = import_weights(tmp_path / 'theirs.pth', format, backbone | dict(img_size=32), tmp_path / 'start.pth')
    assert left_out == ['mask_token', 'decoder_blocks.0.norm1.weight']

    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'start.pth'), prefix='backbone.')
    started = build(backbone | dict(img_size=32, init_cfg=init_cfg))
    started.init_weights()
    images = torch.randn(2, 3, 32, 32)
    original.eval(), started.eval()
    torch.testing.assert_close(started(images)[-1], original(images)[-1])  # which resizes while it runs


def test_register_tokens_are_not_dropped_silently(tmp_path):
    state = {'reg_token': torch.zeros(1, 4, 32)}
    run(tmp_path, VIT, 'timm')
    torch.save(state | load_file(tmp_path / 'timm' / 'model.safetensors'), tmp_path / 'theirs.pth')
    with pytest.raises(ValueError, match=r'without a counterpart in a VisionTransformer \(reg_token\)'):
        import_weights(tmp_path / 'theirs.pth', 'timm', VIT, tmp_path / 'start.pth')
    assert not (tmp_path / 'start.pth').exists()


def test_masks_that_a_swin_computes_are_no_weights(tmp_path):
    run(tmp_path, SWIN, 'timm')
    state = {'layers.0.blocks.1.attn_mask': torch.zeros(4, 16, 16)}
    torch.save(state | load_file(tmp_path / 'timm' / 'model.safetensors'), tmp_path / 'theirs.pth')
    import_weights(tmp_path / 'theirs.pth', 'timm', SWIN, tmp_path / 'start.pth')
    assert (tmp_path / 'start.pth').exists()


def test_weights_of_another_architecture_are_not_imported(tmp_path):
    run(tmp_path, VIT, 'timm')
    deeper = VIT | dict(arch=ARCH | dict(num_layers=3))
    with pytest.raises(ValueError, match=r'another architecture than the config.s VisionTransformer: missing: la'):
        import_weights(tmp_path / 'timm' / 'model.safetensors', 'timm', deeper, tmp_path / 'start.pth')


def test_oblong_position_embeddings_are_not_resized(tmp_path):
    with pytest.raises(ValueError, match='other images than square ones cannot be resized'):
        run(tmp_path, VIT | dict(img_size=(32, 48)), 'timm', image_size=32)
    run(tmp_path, VIT | dict(img_size=(32, 48)), 'timm')
    with pytest.raises(ValueError, match='other images than square ones cannot be resized'):
        import_weights(tmp_path / 'timm' / 'model.safetensors', 'timm', VIT, tmp_path / 'start.pth')
    assert not (tmp_path / 'start.pth').exists()


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT)
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    content['state_dict']['backbone.layers.0.attn.qkv.weight'][0] = float('nan')
    torch.save(content, tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match='has features that are not finite: its training diverged'):
        export(tmp_path / 'epoch_1.pth', 'timm', tmp_path / 'timm')
    assert not (tmp_path / 'timm').exists()


@pytest.mark.parametrize(('depth', 'expected'), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11])])
def test_maps_of_a_vit_are_of_different_blocks(tmp_path, depth, expected):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT | dict(arch=ARCH | dict(num_layers=depth)))
    assert dense_outputs(read_source(tmp_path / 'epoch_1.pth'))['out_indices'] == expected


def test_the_source_keeps_what_was_trained(tmp_path):
    save_checkpoint(tmp_path / 'epoch_1.pth', VIT)
    source = read_source(tmp_path / 'epoch_1.pth', image_size=64)
    assert source.trained.pos_embed.shape == (1, 17, 32) and source.resized.pos_embed.shape == (1, 65, 32)
    assert isinstance(source.trained, nn.Module) and not source.trained.training and not source.resized.training


def test_one_mean_for_all_channels(tmp_path):
    from transformers import AutoImageProcessor

    save_checkpoint(tmp_path / 'epoch_1.pth', VIT, normalization=dict(mean=[127.5], std=[51.0]))
    export(tmp_path / 'epoch_1.pth', 'hf', tmp_path / 'hf')
    processor = AutoImageProcessor.from_pretrained(tmp_path / 'hf')
    white = np.full((32, 32, 3), 255, np.uint8)
    assert processor(white, return_tensors='np')['pixel_values'] == pytest.approx(2.5)
