import json
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from shrink import TINY_BACKBONES, TINY_WIDTHS

from mmebm.commands import make_shapes, train
from mmebm.commands import test as evaluate
from mmebm.launch.options import replace_data_root

pytestmark = pytest.mark.slow  # shipped configs are trained

FOLDER = Path(__file__).parents[2] / 'configs'
BACKBONES = ['vit-s', 'vit-b', 'vit-l', 'swin-b', 'convnext-t', 'resnet50']
FINETUNE = [FOLDER / f'finetune/finetune_ebm-{name}_in1k.py' for name in BACKBONES]
FEW_LABELS = [
    FOLDER / f'finetune/finetune_ebm-{name}_in1k-{share}.py'
    for name in ('vit-b', 'resnet50')
    for share in ('1pct', '10pct')
]
LINEAR = [FOLDER / f'linear/linear_ebm-{name}_in1k.py' for name in BACKBONES]
CONFIGS = FINETUNE + FEW_LABELS + LINEAR
SIZE = 64


def by_name(configs):
    return pytest.mark.parametrize('config', configs, ids=lambda path: path.stem)


def backbone_name(config):
    return config.stem.split('_')[1].removeprefix('ebm-')


def pretraining(config):
    """The config that pretrains the backbone which ``config`` loads."""
    return Config.fromfile(FOLDER / f'ebm_{backbone_name(config)}_in1k.py')


def shrink_model(model):
    """A tiny backbone of the same kind, in a pretraining or a downstream config."""
    kind = model.backbone.type
    model.backbone.update(TINY_BACKBONES[kind])
    if 'img_size' in model.backbone:
        model.backbone.img_size = SIZE
    if kind == 'VisionTransformer' and 'frozen_stages' in model.backbone:
        model.backbone.frozen_stages = 2  # all there are
    model.head.in_channels = TINY_WIDTHS[kind]
    if isinstance(model.get('neck'), list):
        model.neck[1].input_features = TINY_WIDTHS[kind]


def save_checkpoint(model, path):
    """A pretraining checkpoint in which no parameter has the value that an initialisation would give it."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            tensor.add_(0.02 * torch.randn_like(tensor))
    torch.save(dict(state_dict=model.state_dict()), path)


@pytest.fixture
def unfilled(monkeypatch):
    """Layers leave their weights as they find them in memory: full-size models are built in no time."""
    for layer in (torch.nn.Linear, torch.nn.modules.conv._ConvNd):
        monkeypatch.setattr(layer, 'reset_parameters', lambda self: None)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Ten folders of classes in train/ and in val/, and a list of half of the training images."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '20', '--val', '10', '--image-size', str(SIZE)])
    classes = sorted(path.name for path in (folder / 'train').iterdir())
    lines = [
        f'{path.relative_to(folder / "train")} {classes.index(path.parent.name)}'
        for path in sorted((folder / 'train').rglob('*.png'))[::2]
    ]
    (folder / 'meta').mkdir()
    for share in ('1pct', '10pct'):
        (folder / f'meta/train_{share}.txt').write_text('\n'.join(lines))
    return folder


@pytest.fixture
def tiny(shapes, tmp_path):
    """Makes a config small, with a checkpoint of its tiny backbone, one epoch on Shapes, and no workers."""

    def shrink(config):
        cfg, source = Config.fromfile(config), pretraining(config)
        shrink_model(cfg.model)
        shrink_model(source.model)
        source.model.training_step = dict(compile=False)
        model = MODELS.build(source.model)
        save_checkpoint(model, tmp_path / 'pretrained.pth')
        cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'pretrained.pth')
        cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 10
        replace_data_root(cfg, cfg.data_root, str(shapes))
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(batch_size=10, num_workers=0, persistent_workers=False)
            for step in loader.dataset.pipeline:
                step.update({key: SIZE for key in ('scale', 'crop_size') if key in step})
        cfg.optim_wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # mmengine's AmpOptimWrapper needs a GPU
        cfg.train_cfg.max_epochs = 1
        cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator = None, None, None
        cfg.test_cfg, cfg.test_dataloader, cfg.test_evaluator = None, None, None
        cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name + config.stem, log_level='WARNING')
        cfg.randomness = dict(seed=0)
        return cfg, model.eval()

    return shrink


def test_every_config_is_tested_and_has_a_name_of_its_own():
    assert sorted(CONFIGS) == sorted([*FOLDER.glob('finetune/*_in1k*.py'), *FOLDER.glob('linear/*_in1k*.py')])
    stems = [path.stem for path in FOLDER.rglob('*.py')]
    assert len(stems) == len(set(stems))


@by_name(FINETUNE + LINEAR)
def test_full_size_backbone_is_the_pretrained_one_key_by_key(config, unfilled):
    source = pretraining(config)
    source.model.training_step = dict(compile=False)
    weights = MODELS.build(source.model.backbone).to('meta').state_dict()
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model).to('meta')  # shapes without numbers
    model.backbone.load_state_dict(weights, strict=True)
    size = cfg.model.backbone.get('img_size', 224)
    assert model.head(model.extract_feat(torch.zeros(2, 3, size, size, device='meta'))).shape == (2, 1000)
    assert cfg.resume is False and cfg.load_from is None
    assert cfg.model.backbone.init_cfg.checkpoint == f'work_dirs/{Path(source.filename).stem}/epoch_100.pth'
    assert source.train_cfg.max_epochs == 100


@by_name(FINETUNE + LINEAR)
def test_checkpoint_brings_the_pretrained_features(config, tiny):
    cfg, pretrained = tiny(config)
    model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    for name, weight in model.backbone.state_dict().items():
        assert weight.equal(pretrained.backbone.state_dict()[name]), name

    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        (expected,) = pretrained.backbone(images)
        (features,) = model.eval().backbone(images)
        if expected.dim() == 3:  # class token and patches
            expected = expected[:, 1:].transpose(1, 2).unflatten(2, (SIZE // 16, SIZE // 16))
        assert features.equal(expected)
        neck = model.neck[0] if isinstance(cfg.model.neck, list) else model.neck
        torch.testing.assert_close(neck((features,))[0], expected.mean((2, 3)))


def record_gradients(model):
    """Names of the parameters that a training reaches with a finite gradient that is not zero."""
    reached = set()
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.register_hook(lambda g, name=name: reached.add(name) if g.isfinite().all() and g.any() else None)
    return reached


@by_name(FINETUNE + FEW_LABELS)
def test_finetuning_reaches_every_parameter(config, tiny):
    cfg, _ = tiny(config)
    runner = Runner.from_cfg(cfg)
    assert len(runner.build_dataloader(cfg.train_dataloader).dataset) == (10 if config in FEW_LABELS else 20)
    reached = record_gradients(runner.model)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert reached == set(before)
    moved = {name for name, p in runner.model.named_parameters() if not p.equal(before[name])}
    assert {name for name in before if name.startswith('head.')} <= moved
    assert runner.message_hub.get_scalar('train/loss').current() > 0


@by_name(LINEAR)
def test_a_probe_leaves_the_backbone_alone(config, tiny):
    cfg, pretrained = tiny(config)
    cfg.train_cfg.max_epochs = 2  # the first step is one of a learning rate near zero
    runner = Runner.from_cfg(cfg)
    reached = record_gradients(runner.model)
    runner.train()
    assert reached == {name for name, p in runner.model.named_parameters() if p.requires_grad}
    assert reached == {'head.layers.head.weight', 'head.layers.head.bias'}
    for name, tensor in runner.model.backbone.state_dict().items():  # statistics of norms included
        assert tensor.equal(pretrained.backbone.state_dict()[name]), name

    # The norm before the head follows the features; it has no weights.
    (bn,) = [module for module in runner.model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert (int(bn.num_batches_tracked), bn.affine) == (4, False)
    assert (bn.running_mean != 0).any()


def finetuning_depths(name):
    """How many layers above each parameter are, by the definition of layer decay in each recipe, and the rate."""

    def block(parameter):
        return [int(part) for part in parameter.split('.') if part.isdigit()]

    def vit(parameter, layers):
        if parameter.startswith('layers.'):
            return layers - block(parameter)[0]
        return 0 if parameter.startswith('ln1.') else layers + 1

    def swin(parameter):
        ends = [2, 4, 22, 24]  # blocks up to the end of each stage
        if parameter.startswith('patch_embed.'):
            return 25
        if parameter.startswith('norm3.'):
            return 0
        stage, *index = block(parameter)
        number = ends[stage] if 'downsample' in parameter else ([0, *ends][stage] + index[0] + 1)
        return 25 - number

    def convnext(parameter):
        if parameter.startswith('norm3.'):
            return 0
        stage, index = block(parameter)[:2]
        if parameter.startswith('downsample_layers.'):
            return [7, 5, 4, 1][stage]
        return [6, 5, 4 - index // 3, 1][stage]

    def resnet(parameter):
        if not parameter.startswith('layer'):
            return 7
        stage, index = int(parameter[5]), block(parameter)[0]
        return [6, 5 - index // 2, 3 - index // 3, 1][stage - 1]

    return {
        'vit-s': (lambda p: vit(p, 12), 0.65),
        'vit-b': (lambda p: vit(p, 12), 0.65),
        'vit-l': (lambda p: vit(p, 24), 0.75),
        'swin-b': (swin, 0.9),
        'convnext-t': (convnext, 0.7),
        'resnet50': (resnet, 0.7),
    }[name]


@by_name(FINETUNE)
def test_learning_rates_decay_layer_by_layer(config, unfilled):
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model).to('meta')
    wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    above, rate = finetuning_depths(backbone_name(config))
    groups = [group for group in wrapper.param_groups if 'param_name' in group]  # one more is mmengine's own
    assert len(groups) == len(list(model.parameters()))
    for group in groups:
        name = group['param_name']
        depth = above(name.removeprefix('backbone.')) if name.startswith('backbone.') else 0
        assert group['lr'] == pytest.approx(cfg.optim_wrapper.optimizer.lr * rate**depth), name


@pytest.mark.parametrize('config', [FINETUNE[1], LINEAR[5]], ids=lambda path: path.stem)
def test_train_and_test_on_folders_of_classes(config, tiny, shapes, tmp_path, monkeypatch):
    """With data_root and the number of classes changed, as the header says, from the command line."""
    cfg, _ = tiny(config)
    model = dict(backbone=dict(cfg.model.backbone, _delete_=True), head=dict(in_channels=cfg.model.head.in_channels))
    if isinstance(cfg.model.neck, list):
        model['neck'] = [dict(step) for step in cfg.model.neck]
    small = tmp_path / f'small_{config.name}'  # the name is the experiment's, which must be new
    small.write_text(
        f'_base_ = {str(config)!r}\nmodel = {model}\n'
        'train_dataloader = dict(batch_size=10, num_workers=0, persistent_workers=False)\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=False)\n'
        'test_dataloader = dict(num_workers=0, persistent_workers=False)\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    options = [f'data_root={shapes}', 'model.head.num_classes=10', 'log_level=WARNING']
    options += ['data_preprocessor.num_classes=10'] if config in FINETUNE else []
    train.main([str(small), '--cfg-options', *options, 'train_cfg.max_epochs=1'])
    (records,) = tmp_path.glob('work_dirs/small_*/*/vis_data/scalars.json')
    (scores,) = [row for row in map(json.loads, records.read_text().splitlines()) if 'accuracy/top1' in row]

    evaluate.main([str(small), f'work_dirs/{small.stem}/epoch_1.pth', '--out', 'scores.pkl', '--cfg-options', *options])
    predictions = load('scores.pkl')
    assert len(predictions) == 10 and {int(p['gt_label']) for p in predictions} == set(range(10))
    right = [int(p['pred_label']) == int(p['gt_label']) for p in predictions]
    assert scores['accuracy/top1'] == pytest.approx(100 * sum(right) / 10)
    assert scores['accuracy/top5'] >= scores['accuracy/top1']


def test_the_documented_command_lists_images_with_their_labels(tmp_path):
    header = FEW_LABELS[0].read_text().split('"""')[1]
    command = '\n'.join(line.strip() for line in header.splitlines() if line.startswith('    '))
    for name in ('n01440764', 'n01443537', 'n02119789'):
        (tmp_path / 'train' / name).mkdir(parents=True)
        (tmp_path / 'train' / name / f'{name}_7.JPEG').touch()
    (tmp_path / '1percent.txt').write_text('n02119789_7.JPEG\nn01440764_7.JPEG\n')
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    cfg = Config.fromfile(FEW_LABELS[0])
    dataset = DATASETS.build(cfg.train_dataloader.dataset | dict(data_root=str(tmp_path), pipeline=[]))
    found = [(Path(dataset[i]['img_path']), dataset[i]['gt_label']) for i in range(len(dataset))]
    train_folder = tmp_path / 'train'
    assert found == [
        (train_folder / 'n02119789/n02119789_7.JPEG', 2),
        (train_folder / 'n01440764/n01440764_7.JPEG', 0),
    ]
