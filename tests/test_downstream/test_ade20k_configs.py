import subprocess
import sys
from pathlib import Path

import mmengine.runner.checkpoint
import pytest
import torch
import torch.nn.functional as F
from learning_rates import shares_of_base
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ConvNeXt, SwinTransformer
from mmpretrain.registry import MODELS as PRETRAINING_MODELS
from shrink import TINY_BACKBONES, shrink

from mmebm.commands.make_shapes import main as make_shapes
from mmebm.datasets import Shapes
from mmebm.launch.options import replace_data_root
from mmebm.models.backbones.stages import ConvNeXtStages, StageNorms, SwinStages

pytestmark = pytest.mark.slow  # shipped configs, of mmseg and mmdet too, are trained

mmseg_registry = pytest.importorskip('mmseg.registry', exc_type=ImportError)

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(FOLDER.glob('ade20k/*.py'))
OF_THE_IMAGE_SIZE = {'pos_embed'}  # interpolated when it is loaded

# By class of mmpretrain's backbone: options that make it small, and the widths of what it then returns.
TINY = {
    'VisionTransformer': (
        dict(arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64), out_indices=[0, 1, 2, 3]),
        [32, 32, 32, 32],
    ),
    'SwinStages': (TINY_BACKBONES['SwinTransformer'], [8, 16, 32, 64]),
    'ConvNeXtStages': (TINY_BACKBONES['ConvNeXt'], [8, 16, 16, 32]),
    'ResNet': (TINY_BACKBONES['ResNet'], [32, 64, 128, 256]),
}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return request.param


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ade20k')
    make_shapes([str(folder), '--layout', 'ade20k', '--image-size', '64', '--train', '4', '--val', '2'])
    return str(folder)


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return mmseg_registry.MODELS.build(cfg.model)


def pretraining(config):
    """The config whose checkpoints the config loads, as its own `init_cfg` names it."""
    checkpoint = Path(Config.fromfile(config).model.backbone.init_cfg.checkpoint)
    return Config.fromfile(FOLDER / f'{checkpoint.parent.name}.py')


def small(config, data_root, work_dir, checkpoint=None):
    """The config on the embedded data, with tiny backbone and heads, for one step on two images of 64 pixels."""
    cfg = Config.fromfile(config)
    replace_data_root(cfg, cfg.data_root, data_root)
    backbone = cfg.model.backbone
    options, widths = TINY[backbone.type.rpartition('.')[2]]
    backbone.update(options, drop_path_rate=0.0)
    backbone.init_cfg = checkpoint and dict(backbone.init_cfg, checkpoint=checkpoint)
    if 'img_size' in backbone:
        backbone.img_size = 64
    if cfg.model.get('neck', {}).get('type') == 'Feature2Pyramid':
        cfg.model.neck.embed_dim = widths[0]
    elif 'neck' in cfg.model:
        cfg.model.neck.in_channels = widths[:-1]
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.decode_head.update(in_channels=widths, channels=8, num_classes=10)
    cfg.model.auxiliary_head.update(in_channels=widths[2], channels=8, num_classes=10)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            if 'Resize' in step['type']:
                step['scale'] = (256, 64)
            if step['type'] == 'RandomCrop':
                step['crop_size'] = (64, 64)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision needs a GPU
    cfg.optim_wrapper.pop('loss_scale', None)
    cfg.param_scheduler = None
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.update(work_dir=work_dir, experiment_name=work_dir.replace('/', '_'))
    return cfg


def pretrained(config, work_dir):
    """Runs one step of the pretraining with a tiny backbone; returns its config and its checkpoint."""
    cfg = shrink(pretraining(config), work_dir, image_size=224)
    if 'num_layers' in cfg.model.backbone.get('arch', {}):  # a ViT
        cfg.model.backbone.arch.num_layers = 4
    Runner.from_cfg(cfg).train()
    return cfg, f'{work_dir}/epoch_1.pth'


def test_the_list_of_configs():
    assert {path.stem for path in CONFIGS} == {
        'upernet_ebm-vit-b_ade20k',
        'upernet_ebm-swin-b_ade20k',
        'upernet_ebm-convnext-t_ade20k',
        'upernet_ebm-resnet50_ade20k',
        'upernet_ebm-vit-t_shapes',
    }


def test_at_full_size_its_backbone_is_that_of_the_pretraining(config):
    cfg = Config.fromfile(config)
    size, classes = cfg.model.data_preprocessor.size[0], cfg.model.decode_head.num_classes
    assert (size, classes) == ((64, 10) if 'shapes' in config.stem else (512, 150))
    model = build(cfg).to('meta').eval()  # shapes without arithmetic
    backbone = PRETRAINING_MODELS.build(pretraining(config).model.backbone).state_dict()
    loaded = model.backbone.state_dict()
    assert loaded.keys() == backbone.keys()
    other = {name for name, value in loaded.items() if value.shape != backbone[name].shape}
    assert other == (OF_THE_IMAGE_SIZE if 'vit-b' in config.stem else set())
    stride = 2 if 'shapes' in config.stem else 4
    logits = model(torch.zeros(1, 3, size, size, device='meta'))
    assert logits.shape == (1, classes, size // stride, size // stride)
    images = torch.zeros(1, 3, size, size, device='meta')
    strides = [8 * 2**i for i in (-2, -1, 0, 1)] if 'shapes' in config.stem else [4, 8, 16, 32]
    assert [size // feature.shape[-1] for feature in model.extract_feat(images)] == strides


def test_a_real_checkpoint_loads_with_no_missing_and_no_unexpected_key(config, data_root, tmp_path, monkeypatch):
    pretraining_cfg, checkpoint = pretrained(config, str(tmp_path / 'pretraining'))
    saved = torch.load(checkpoint, weights_only=False)['state_dict']
    backbone = PRETRAINING_MODELS.build(pretraining_cfg.model.backbone)
    backbone.load_state_dict({key[9:]: value for key, value in saved.items() if key.startswith('backbone.')})

    cfg = small(config, data_root, str(tmp_path / 'segmentation'), checkpoint)
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = pretraining_cfg.model.backbone.img_size
    loose, calls = mmengine.runner.checkpoint.load_state_dict, []

    def strict(module, state_dict, **kwargs):
        calls.append(type(module).__name__)
        loose(module, state_dict, strict=True)  # raises where mmengine would only warn

    monkeypatch.setattr(mmengine.runner.checkpoint, 'load_state_dict', strict)
    model = build(cfg)
    model.init_weights()
    assert calls == [cfg.model.backbone.type.rpartition('.')[2]]

    images = torch.randn(2, 3, 224, 224)
    model.eval(), backbone.eval()
    with torch.no_grad():
        features, expected = model.backbone(images), backbone(images)[-1]
    if expected.dim() == 3:  # tokens, the class token first
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, features[-1].shape[2:])
    assert len(features) == 4
    assert (features[-1] - expected).abs().max() < 1e-5


def test_position_embeddings_are_interpolated_when_loaded(data_root, tmp_path):
    config = FOLDER / 'ade20k/upernet_ebm-vit-b_ade20k.py'
    _, checkpoint = pretrained(config, str(tmp_path / 'pretraining'))
    cfg = small(config, data_root, str(tmp_path), checkpoint)
    cfg.model.backbone.img_size = Config.fromfile(config).model.backbone.img_size
    model = build(cfg)
    model.init_weights()
    saved = torch.load(checkpoint, weights_only=False)['state_dict']['backbone.pos_embed']
    assert (saved.shape, model.backbone.pos_embed.shape) == ((1, 1 + 14 * 14, 32), (1, 1 + 32 * 32, 32))
    grid = saved[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    expected = F.interpolate(grid, size=(32, 32), mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    assert (model.backbone.pos_embed[:, 1:] - expected).abs().max() < 1e-6
    assert model.backbone.pos_embed[:, :1].equal(saved[:, :1])


def test_one_training_step_reaches_every_parameter(config, data_root, tmp_path):
    runner = Runner.from_cfg(small(config, data_root, str(tmp_path)))
    gradients = {}
    for name, p in runner.model.named_parameters():
        p.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient))
    runner.train()
    assert sorted({name for name, _ in runner.model.named_parameters()} - gradients.keys()) == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    scalars = runner.message_hub.log_scalars
    assert 0 <= scalars['val/mIoU'].current() <= 100
    assert (tmp_path / 'iter_1.pth').is_file()


def test_mmengine_alone_builds_what_a_training_leaves_beside_its_checkpoints(tmp_path):
    """Of a config that inherits from ``mmseg::``, mmengine finds the base only once mmebm is imported."""
    dumped = tmp_path / 'dumped.py'
    Config.fromfile(FOLDER / 'ade20k' / 'upernet_ebm-convnext-t_ade20k.py').dump(dumped)
    code = f"""
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

cfg = Config.fromfile({str(dumped)!r})
init_default_scope('mmseg')
print('built:', type(MODELS.build(cfg.model)).__name__)
import mmcv.ops
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'built: EncoderDecoder' in done.stdout


def test_each_config_imports_mmebm(config):
    assert Config.fromfile(config).custom_imports == dict(imports=['mmebm'], allow_failed_imports=False)


def test_labels_of_the_embedded_data(config, data_root):
    cfg = Config.fromfile(config)
    replace_data_root(cfg, cfg.data_root, data_root)
    size = cfg.model.data_preprocessor.size[0]
    with DefaultScope.overwrite_default_scope('mmseg'):
        train, val = (
            mmseg_registry.DATASETS.build(loader.dataset) for loader in (cfg.train_dataloader, cfg.val_dataloader)
        )
    assert (len(train), len(val)) == (4, 2)
    for dataset, longest in ((train, size), (val, 64)):
        for i in range(len(dataset)):
            labels = dataset[i]['data_samples'].gt_sem_seg.data
            assert max(labels.shape[-2:]) <= longest
            assert set(labels.unique().tolist()) <= {*range(10), 255}
    # The label in the file is 0 = background, which is ignored, or 1 + class.
    shapes = torch.from_numpy(Shapes(size=2, image_size=64, split='val').draw(1).gt_seg_map).long() - 1
    assert val[1]['data_samples'].gt_sem_seg.data[0].equal(shapes.where(shapes >= 0, 255))


def test_the_shapes_config_names_the_classes():
    cfg = Config.fromfile(FOLDER / 'ade20k/upernet_ebm-vit-t_shapes.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == Shapes.METAINFO['classes']


def learning_rates(name):
    cfg = Config.fromfile(FOLDER / 'ade20k' / name)
    return shares_of_base(build(cfg).to('meta'), cfg)


def test_the_vits_learning_rate_decays_by_layer():
    shares = learning_rates('upernet_ebm-vit-b_ade20k.py')
    for stem in ('cls_token', 'pos_embed', 'patch_embed.projection.bias'):
        assert shares[f'backbone.{stem}'] == pytest.approx((0.65**13, 0))
    assert shares['backbone.patch_embed.projection.weight'] == pytest.approx((0.65**13, 1))
    for layer in range(12):
        assert shares[f'backbone.layers.{layer}.attn.qkv.weight'] == pytest.approx((0.65 ** (12 - layer), 1))
        assert shares[f'backbone.layers.{layer}.attn.qkv.bias'] == pytest.approx((0.65 ** (12 - layer), 0))
        assert shares[f'backbone.layers.{layer}.ln1.weight'] == pytest.approx((0.65 ** (12 - layer), 0))
    assert shares['backbone.ln1.weight'] == (1, 0)
    rest = {share for name, share in shares.items() if not name.startswith('backbone.')}
    assert rest == {(1, 0), (1, 1)}


def test_convnexts_learning_rate_decays_by_stage():
    shares = learning_rates('upernet_ebm-convnext-t_ade20k.py')
    assert shares['backbone.downsample_layers.0.0.weight'] == pytest.approx((0.9**7, 1))
    for stage in range(4):
        name = f'backbone.stages.{stage}.0.depthwise_conv.weight'
        assert shares[name] == pytest.approx((0.9 ** (6 - stage), 1))
    assert shares['backbone.norm3.weight'] == shares['neck.norms.0.weight'] == (1, 0)
    assert shares['decode_head.conv_seg.weight'] == (1, 1)


def test_layer_decay_needs_a_backbone_that_knows_its_depth():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    decay = dict(layer_decay_rate=0.5)
    options = dict(optimizer=dict(type='AdamW', lr=1.0), constructor='mmebm.BackboneLayerDecay', paramwise_cfg=decay)
    with pytest.raises(TypeError, match='BackboneLayerDecay: Linear has no get_layer_depth'):
        build_optim_wrapper(model, dict(type='OptimWrapper', **options))


@pytest.mark.parametrize('kind', ['swin', 'convnext'])
def test_stages_and_their_norms_are_the_backbone_with_all_norms(kind):
    if kind == 'swin':
        options = dict(TINY_BACKBONES['SwinTransformer'], img_size=64)
        backbone, stages, eps = SwinTransformer(out_indices=(0, 1, 2, 3), **options), SwinStages(**options), 1e-5
    else:
        options = dict(TINY_BACKBONES['ConvNeXt'], gap_before_final_norm=False, layer_scale_init_value=1.0)
        backbone, stages, eps = ConvNeXt(out_indices=(0, 1, 2, 3), **options), ConvNeXtStages(**options), 1e-6
    for p in backbone.parameters():
        torch.nn.init.normal_(p, std=0.2)
    state = backbone.state_dict()
    moved = {name: value for name, value in state.items() if name.startswith(('norm0', 'norm1', 'norm2'))}
    norms = StageNorms([len(moved[f'norm{i}.weight']) for i in range(3)], eps=eps)
    stages.load_state_dict({name: value for name, value in state.items() if name not in moved})
    norms.load_state_dict({name.replace('norm', 'norms.'): value for name, value in moved.items()})
    images = torch.randn(2, 3, 64, 64)
    backbone.eval(), stages.eval()
    with torch.no_grad():
        for feature, expected in zip(norms(stages(images)), backbone(images), strict=True):
            torch.testing.assert_close(feature, expected, atol=1e-6, rtol=1e-6)


def test_one_norm_too_few_is_refused():
    with pytest.raises(ValueError, match='got 4 stages; in_channels names 2'):
        StageNorms([8, 8])([torch.zeros(1, 8, 2, 2)] * 4)
