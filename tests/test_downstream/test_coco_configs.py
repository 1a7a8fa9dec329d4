import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning_rates import shares_of_base
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, checkpoint, save_checkpoint
from mmpretrain.registry import MODELS as PRETRAINING_MODELS
from shrink import TINY_BACKBONES

from mmebm.commands import test as test_command
from mmebm.commands import train as train_command
from mmebm.commands.make_shapes import main as make_shapes
from mmebm.datasets import Shapes
from mmebm.launch.options import replace_data_root

pytestmark = pytest.mark.slow  # shipped configs, of mmseg and mmdet too, are trained

mmdet_registry = pytest.importorskip('mmdet.registry', exc_type=ImportError)

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(FOLDER.glob('coco/*.py'))
CLASSES = Shapes.METAINFO['classes']
VIT = TINY_BACKBONES['VisionTransformer']['arch']

# By class of the pretraining's backbone: options that make it small, the neck that follows, and an image size at which
# the detector's backbone computes the same (a ViT's window covers the map; a Swin of 7 x 7 patches would not shift).
TINY = {
    'VisionTransformer': (dict(arch=dict(VIT, num_layers=4)), dict(in_channels=32, out_channels=8), 224),
    'SwinTransformer': (dict(arch=TINY_BACKBONES['SwinTransformer']['arch']), [8, 16, 32, 64], 256),
    'ConvNeXt': (TINY_BACKBONES['ConvNeXt'], [8, 16, 16, 32], 256),
    'ResNet': (TINY_BACKBONES['ResNet'], [32, 64, 128, 256], 256),
}
TINY |= {f'mmebm.{name}': TINY['VisionTransformer'] for name in ('SinCosViT', 'PatchSubsetViT')}
# As mmdet's recipe for ResNet has it.
FROZEN = {'mask-rcnn_ebm-resnet50_coco': ('backbone.conv1.', 'backbone.bn1.', 'backbone.layer1.')}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return request.param


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('coco')
    make_shapes([str(folder), '--layout', 'coco', '--image-size', '64', '--train', '2', '--val', '2'])
    return f'{folder}/'


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return mmdet_registry.MODELS.build(cfg.model)


def pretraining_backbone(config):
    """The config of the backbone whose checkpoints the config loads, as its own `init_cfg` names it."""
    path = Path(Config.fromfile(config).model.backbone.init_cfg.checkpoint)
    return Config.fromfile(FOLDER / f'{path.parent.name}.py').model.backbone


def tiny_backbones(config):
    """Configs of the small backbones of pretraining and detector, as many as both have in common."""
    pretrained, backbone = pretraining_backbone(config), Config.fromfile(config).model.backbone
    options, _, _ = TINY[pretrained.type]
    for each in (pretrained, backbone):
        each.update(options)
    return pretrained, backbone


def dataset_of(dataloader):
    """The data set itself, which mmdet's large-scale jitter repeats."""
    return dataloader.dataset.get('dataset', dataloader.dataset)


def small(config, data_root, work_dir):
    """The config on the embedded data with small networks, for one step on two images of 64 pixels."""
    cfg = Config.fromfile(config)
    replace_data_root(cfg, cfg.data_root, data_root)
    _, widths, _ = TINY[pretraining_backbone(config).type]
    _, cfg.model.backbone = tiny_backbones(config)
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    necks = cfg.model.neck if isinstance(cfg.model.neck, list) else [cfg.model.neck]
    necks[-1].update(widths if isinstance(widths, dict) else dict(in_channels=widths, out_channels=8))
    if len(necks) == 2:
        necks[0].in_channels = widths[:-1]
    cfg.model.data_preprocessor.pad_size_divisor = 64
    roi = cfg.model.roi_head
    cfg.model.rpn_head.update(in_channels=8, feat_channels=8)
    roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = 8
    roi.bbox_head.update(in_channels=8, conv_out_channels=8, fc_out_channels=16, num_classes=10)
    roi.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=10)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        dataset_of(loader).metainfo = dict(classes=CLASSES)
    load, annotations, *_, pack = dataset_of(cfg.train_dataloader).pipeline
    dataset_of(cfg.train_dataloader).update(pipeline=[load, annotations, pack])
    cfg.val_dataloader.dataset.pipeline[1].scale = (64, 64)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision needs a GPU
    cfg.param_scheduler = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.log_processor.by_epoch = False
    cfg.update(work_dir=work_dir, experiment_name=work_dir.replace('/', '_'))
    return cfg


def test_the_list_of_configs():
    assert {path.stem for path in CONFIGS} == {
        'mask-rcnn_ebm-vit-b_coco',
        'mask-rcnn_ebm-swin-b_coco',
        'mask-rcnn_ebm-convnext-t_coco',
        'mask-rcnn_ebm-resnet50_coco',
        'mask-rcnn_ebm-vit-t_shapes',
    }


def test_at_full_size_its_backbone_is_that_of_the_pretraining(config):
    cfg = Config.fromfile(config)
    model = build(cfg).to('meta')  # shapes without arithmetic
    backbone = PRETRAINING_MODELS.build(pretraining_backbone(config)).to('meta')
    shapes, expected = ({k: v.shape for k, v in each.state_dict().items()} for each in (model.backbone, backbone))
    assert shapes == expected
    is_shapes = 'shapes' in config.stem
    size, width, strides = (64, 48, [2, 4, 8, 16, 32]) if is_shapes else (256, 256, [4, 8, 16, 32, 64])
    model.eval()
    maps = model.extract_feat(torch.zeros(2, 3, size, size, device='meta'))
    assert [tuple(x.shape) for x in maps] == [(2, width, size // stride, size // stride) for stride in strides]
    assert [stride for stride, _ in model.rpn_head.prior_generator.strides] == strides
    heads = model.roi_head.bbox_head, model.roi_head.mask_head
    assert [head.num_classes for head in heads] == [10 if is_shapes else 80] * 2


def test_a_checkpoint_loads_with_no_missing_and_no_unexpected_key(config, tmp_path, monkeypatch):
    pretrained, cfg = PRETRAINING_MODELS.build(tiny_backbones(config)[0]), tiny_backbones(config)[1]
    for p in pretrained.parameters():
        torch.nn.init.normal_(p, std=0.1)
    state = {f'backbone.{name}': value for name, value in pretrained.state_dict().items()}
    save_checkpoint(dict(state_dict={**state, 'head.weight': torch.zeros(1)}), f'{tmp_path}/epoch_1.pth')
    cfg.init_cfg.checkpoint = f'{tmp_path}/epoch_1.pth'
    loose, loaded = checkpoint.load_state_dict, []

    def strict(module, state_dict, **kwargs):
        loaded.append(module)
        loose(module, state_dict, strict=True)  # raises where mmengine would only warn

    monkeypatch.setattr(checkpoint, 'load_state_dict', strict)
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone = mmdet_registry.MODELS.build(cfg)
    backbone.init_weights()
    assert loaded == [backbone]

    size = 64 if 'shapes' in config.stem else TINY[pretraining_backbone(config).type][2]
    images = torch.randn(2, 3, size, size)
    pretrained.eval(), backbone.eval()
    with torch.no_grad():
        feature, expected = backbone(images)[-1], pretrained(images)[-1]
    if expected.dim() == 3:  # tokens, the class token first
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, feature.shape[2:])
    assert (feature - expected).abs().max() < 1e-5 < feature.std()


def test_one_training_step_reaches_every_parameter(config, data_root, tmp_path):
    runner = Runner.from_cfg(small(config, data_root, str(tmp_path)))
    gradients = {}
    trainable = {name: p for name, p in runner.model.named_parameters() if p.requires_grad}
    for name, p in trainable.items():
        p.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient))
    runner.train()
    assert sorted(trainable.keys() - gradients.keys()) == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    frozen = [name for name, _ in runner.model.named_parameters() if name not in trainable]
    expected = FROZEN.get(config.stem, ())
    assert all(name.startswith(expected) for name in frozen) and bool(frozen) == bool(expected)
    scalars = runner.message_hub.log_scalars
    for metric in ('bbox_mAP', 'segm_mAP'):
        assert f'val/coco/{metric}' in scalars
    assert (tmp_path / 'iter_1.pth').is_file()


@pytest.mark.parametrize('name', ['mask-rcnn_ebm-resnet50_coco', 'mask-rcnn_ebm-convnext-t_coco'])
def test_mmengine_alone_builds_trains_and_predicts(name, data_root, tmp_path):
    """In a process that imports mmebm by the config only: of the two, one names it nowhere else."""
    config, dumped = FOLDER / 'coco' / f'{name}.py', tmp_path / 'small.py'
    small(config, data_root, str(tmp_path)).dump(dumped)
    code = f"""
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

cfg = Config.fromfile({str(config)!r})
init_default_scope('mmdet')
print('full size:', type(MODELS.build(cfg.model)).__name__)
runner = Runner.from_cfg(Config.fromfile({str(dumped)!r}))
runner.train()
print('ops:', sys.modules['mmcv._ext'].__file__)
print('scored:', *sorted(key for key in runner.message_hub.log_scalars if key.endswith('mAP')))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'full size: MaskRCNN' in done.stdout
    assert 'scored: val/coco/bbox_mAP val/coco/segm_mAP' in done.stdout
    assert f'ops: {sys.modules["mmcv._ext"].__file__}' in done.stdout


def test_each_config_imports_mmebm(config):
    assert Config.fromfile(config).custom_imports == dict(imports=['mmebm'], allow_failed_imports=False)


def test_the_command_in_the_header_trains_and_scores(data_root, tmp_path, monkeypatch, capsys):
    """The full-size pipeline and the options for other classes, with a small network."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    classes = f'({",".join(CLASSES)})'
    options = [
        f'data_root={data_root}',
        'model.roi_head.bbox_head.num_classes=10',
        'model.roi_head.mask_head.num_classes=10',
        f'train_dataloader.dataset.dataset.metainfo.classes={classes}',
        f'val_dataloader.dataset.metainfo.classes={classes}',
        f'test_dataloader.dataset.metainfo.classes={classes}',
        'model.backbone.init_cfg=None',
    ]
    header = CONFIGS[-2].read_text().split('"""')[1]
    assert CONFIGS[-2].stem == 'mask-rcnn_ebm-vit-b_coco'
    assert all(option.partition('=')[0] in header for option in options)
    config = tmp_path / 'small.py'
    config.write_text(f"""
_base_ = '{CONFIGS[-2]}'
width = dict(in_channels=8, conv_out_channels=8)
extractor = dict(out_channels=8)
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{VIT}), num_global=1),
    neck=dict(in_channels=32, out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=extractor, mask_roi_extractor=extractor,
        bbox_head=dict(**width, fc_out_channels=16), mask_head=width,
    ),
)
loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(times=1), **loader)
val_dataloader = test_dataloader = loader
train_cfg = dict(max_epochs=1, val_interval=2)
""")
    argv = ['--work-dir', str(tmp_path / 'work_dir'), '--cfg-options', *options]
    train_command.main([str(config), *argv])
    test_command.main([str(config), str(tmp_path / 'work_dir' / 'epoch_1.pth'), *argv])
    printed = capsys.readouterr().out
    assert 'coco/bbox_mAP' in printed and 'coco/segm_mAP' in printed

    without_numbers = [argument for argument in argv if 'num_classes' not in argument]
    with pytest.raises(ValueError, match=r'has 10 classes.* but model\.roi_head\.bbox_head\.num_classes is 80: set'):
        train_command.main([str(config), *without_numbers])


def test_vitdets_schedule():
    cfg = Config.fromfile(FOLDER / 'coco' / 'mask-rcnn_ebm-vit-b_coco.py')
    passes = cfg.train_dataloader.dataset.times
    assert passes * cfg.train_cfg.max_epochs == 100
    assert [passes * epoch for epoch in cfg.param_scheduler[1].milestones] == [88, 96]
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 64
    assert build(cfg).backbone.global_blocks == {2, 5, 8, 11}


def learning_rates(name):
    cfg = Config.fromfile(FOLDER / 'coco' / name)
    return shares_of_base(build(cfg).to('meta'), cfg)


def test_the_vits_learning_rate_decays_by_layer():
    shares = learning_rates('mask-rcnn_ebm-vit-b_coco.py')
    for name, (rate, decay) in shares.items():
        part = name.split('.')
        if part[:2] == ['backbone', 'layers']:
            depth = int(part[2]) + 1
        else:
            depth = 13 if part[0] != 'backbone' or part[1] == 'ln1' else 0
        assert rate == pytest.approx(0.7 ** (13 - depth))
        no_decay = '.ln' in name or name in ('backbone.cls_token', 'backbone.pos_embed') or is_pyramids_norm(part)
        assert decay == (0 if no_decay else 1), name
    rates = sorted({rate for rate, _ in shares.values()})
    assert rates == pytest.approx([0.7**k for k in range(13, -1, -1)])


def is_pyramids_norm(part):
    return part[:4] == ['neck', 'levels', '0', '1']


def test_convnexts_learning_rate_decays_by_stage():
    shares = learning_rates('mask-rcnn_ebm-convnext-t_coco.py')
    assert shares['backbone.downsample_layers.0.0.weight'] == pytest.approx((0.95**7, 1))
    for block, power in (('0.0', 6), ('1.0', 5), ('2.0', 4), ('2.8', 2), ('3.0', 1)):
        assert shares[f'backbone.stages.{block}.depthwise_conv.weight'] == pytest.approx((0.95**power, 1))
    assert shares['backbone.norm3.weight'] == shares['neck.0.norms.0.weight'] == (1, 0)
    assert shares['roi_head.bbox_head.fc_cls.weight'] == (1, 1)


def test_the_shapes_config_names_the_classes():
    cfg = Config.fromfile(FOLDER / 'coco' / 'mask-rcnn_ebm-vit-t_shapes.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert dataset_of(loader).metainfo.classes == CLASSES
