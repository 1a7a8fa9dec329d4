import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS
from shrink import TINY_BACKBONES, TINY_WIDTHS, shrink
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate

from mmebm.commands import make_shapes
from mmebm.engine.hooks.input_energy_hook import InputEnergyHook
from mmebm.evaluation.ood_metric import OODEnergyMetric
from mmebm.launch.options import replace_data_root
from mmebm.models.classifiers.energy_classifier import EnergyClassifier

pytestmark = pytest.mark.slow  # shipped configs are trained

FOLDER = Path(__file__).parents[2] / 'configs'
EXAMPLES = sorted((FOLDER / 'examples').glob('*.py'))
DOCUMENTATION = FOLDER.parent / 'docs/examples.md'
SIZE = 64


def example(name):
    return Config.fromfile(FOLDER / f'examples/{name}.py')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Shapes in each layout, by its name."""
    folder = tmp_path_factory.mktemp('data')
    for layout in ('imagenet', 'ade20k', 'coco'):
        make_shapes.main([str(folder / layout), '--layout', layout, '--train', '4', '--val', '10',
                          '--image-size', str(SIZE)])  # fmt: skip
    return folder


def one_epoch(cfg, work_dir, name):
    """On the CPU, in this process, without a file but logs and the checkpoint."""
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)  # mmseg's is infinite
    cfg.optim_wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # mmengine's AmpOptimWrapper needs a GPU
    cfg.optim_wrapper.pop('loss_scale', None)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.param_scheduler = None
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    cfg.update(test_cfg=None, test_dataloader=None, test_evaluator=None)
    cfg.update(work_dir=str(work_dir), experiment_name=work_dir.name + name, log_level='WARNING')
    cfg.visualizer.name = work_dir.name + name  # one of the same name would go on writing to where it began
    cfg.randomness = dict(seed=0)
    return Runner.from_cfg(cfg)


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.stem)
def test_every_example_builds_and_is_documented(path):
    assert f'configs/examples/{path.name}' in DOCUMENTATION.read_text()
    cfg = Config.fromfile(path)
    assert cfg.resume is False
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        assert sum(p.numel() for p in MODELS.build(cfg.model).parameters()) > 1e6  # builds at full size


# Our corruptions in others' pipelines


def corrupted_many_times(cfg, image, times=60):
    step = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[-2])
    np.random.seed(0)
    return [step(dict(img=image.copy()))['img'] for _ in range(times)]


def test_half_of_maes_images_are_noisy():
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    spread = np.array([image.std() for image in corrupted_many_times(example('mae-noise_vit-b_in1k'), grey)])
    assert 18 <= (spread == 0).sum() <= 42  # of 60, at 1 in 2
    assert (spread[spread > 0] > 9).all() and (spread <= 51).all()
    assert spread[spread > 0].mean() == pytest.approx(30, abs=5)


def test_simmims_images_are_grey_or_coarse_or_as_they_were():
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    found = dict(clean=0, grey=0, coarse=0)
    for corrupted in corrupted_many_times(example('simmim-degraded_swin-b_in1k'), image):
        if np.array_equal(corrupted, image):
            found['clean'] += 1
        elif (corrupted == corrupted[..., :1]).all():
            found['grey'] += 1
        else:
            assert corrupted.std() < 0.7 * image.std()  # the mean over 2 x 2 pixels or more
            found['coarse'] += 1
    assert all(10 <= count <= 30 for count in found.values())


def note_corruptions(runner):
    """Images before and after the corruption, and those that reach the model, (H, W, C); filled as it trains."""
    pairs, received = [], []
    corruption = runner.train_dataloader.dataset.pipeline.transforms[-2]
    transform = corruption.transform

    def noting(results):
        clean = results['img'].copy()
        results = transform(results)
        pairs.append((clean, results['img'].copy()))
        return results

    corruption.transform = noting
    runner.model.data_preprocessor.register_forward_pre_hook(
        lambda _, args: received.extend(image.permute(1, 2, 0).numpy() for image in args[0]['inputs'])
    )
    return pairs, received


def test_mae_and_simmim_train_on_corrupted_images(tmp_path):
    mae, simmim = example('mae-noise_vit-b_in1k'), example('simmim-degraded_swin-b_in1k')
    mae.model.backbone.update(TINY_BACKBONES['VisionTransformer'], img_size=SIZE)
    mae.model.neck.update(num_patches=16, embed_dim=32, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2)
    simmim.model.backbone.update(
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]), img_size=SIZE, pad_small_map=True
    )
    simmim.model.neck.in_channels = 64
    for cfg in (mae, simmim):
        pipeline = cfg.train_dataloader.dataset.pipeline[1:]  # Shapes need not be loaded
        for step in pipeline:
            step.update({key: SIZE for key in ('scale', 'input_size') if key in step})
        cfg.train_dataloader.dataset = dict(type='mmebm.Shapes', size=8, image_size=SIZE, pipeline=pipeline)
        runner = one_epoch(cfg, tmp_path, cfg.model.type)
        pairs, received = note_corruptions(runner)
        before = [p.clone() for p in runner.model.parameters() if p.requires_grad]
        runner.train()
        changed = [not np.array_equal(clean, corrupted) for clean, corrupted in pairs]
        assert len(pairs) == 8 and sum(changed) >= 2
        for _, corrupted in pairs:  # and these are what the model is given
            assert any(np.array_equal(corrupted, image) for image in received)
        after = [p for p in runner.model.parameters() if p.requires_grad]
        assert all(not p.equal(old) for p, old in zip(after, before, strict=True))


# Energy beside a classifier


def shrink_convnext(model):
    model.backbone.update(TINY_BACKBONES['ConvNeXt'])
    model.head.in_channels = TINY_WIDTHS['ConvNeXt']


def test_energy_of_a_classifiers_images_is_that_of_the_pretraining(shapes, tmp_path):
    source, cfg = Config.fromfile(FOLDER / 'ebm_convnext-t_in1k.py'), example('ood_ebm-convnext-t_in1k')
    for model in (source.model, cfg.model):
        shrink_convnext(model)
    source.model.training_step = dict(compile=False)
    source.model.data_preprocessor = source.data_preprocessor
    pretrained = MODELS.build(source.model)
    with torch.no_grad():
        for p in pretrained.parameters():
            p.add_(0.05 * torch.randn_like(p))
    pretrained.eval()
    checkpoint = str(tmp_path / 'pretrained.pth')
    torch.save(dict(state_dict=pretrained.state_dict()), checkpoint)
    cfg.model.energy_head.in_channels = TINY_WIDTHS['ConvNeXt']
    cfg.model.backbone.init_cfg.checkpoint = cfg.model.energy_head.init_cfg.checkpoint = checkpoint
    cfg.model.neck[1].input_features = TINY_WIDTHS['ConvNeXt']
    cfg.model.head.num_classes = 10
    replace_data_root(cfg, cfg.data_root, str(shapes / 'imagenet'))
    replace_data_root(cfg, cfg.ood_data_root, str(shapes / 'coco' / 'val2017'))
    test = dict(cfg.test_dataloader, num_workers=0, persistent_workers=False)
    evaluator = cfg.test_evaluator

    runner = one_epoch(cfg, tmp_path, 'ood')
    runner.train()
    trained = {name for name, p in runner.model.named_parameters() if p.requires_grad}
    assert trained == {'head.layers.head.weight', 'head.layers.head.bias'}

    loader, energies, known = runner.build_dataloader(test), [], []
    evaluator = runner.build_evaluator(evaluator)
    for batch in loader:
        samples = runner.model.test_step(batch)
        evaluator.process(samples, batch)
        images = torch.stack([image.flip(0) for image in batch['inputs']]).float()  # BGR to RGB
        mean, std = (torch.tensor(cfg.data_preprocessor[key]).view(3, 1, 1) for key in ('mean', 'std'))
        with torch.no_grad():
            expected = pretrained.energy((images - mean) / std)
        torch.testing.assert_close(torch.stack([sample.energy for sample in samples]), expected)
        assert all(sample.pred_score.shape == (10,) for sample in samples)
        energies += expected.tolist()
        known += ['val2017' not in sample.img_path for sample in samples]
    assert known == [True] * 10 + [False] * 10
    metrics = evaluator.evaluate(20)
    assert metrics['energy/ood_auroc'] == pytest.approx(roc_auc_score(np.logical_not(known), energies))
    assert metrics['energy/known'] == pytest.approx(np.mean(energies[:10]), rel=1e-4)
    assert metrics['energy/ood'] == pytest.approx(np.mean(energies[10:]), rel=1e-4)


def scored(known, ood):
    metric = OODEnergyMetric(data_root='data/ood')
    metric.process(None, [dict(energy=torch.tensor(e), img_path='data/ood-not/a.png') for e in known])
    metric.process(None, [dict(energy=torch.tensor(e), img_path='data/ood/b/c.png') for e in ood])
    return metric.evaluate(len(known) + len(ood))


def test_auroc_counts_pairs():
    metrics = scored(known=[0.0, 2.0], ood=[1.0, 2.0, 300.0])
    assert metrics['energy/ood_auroc'] == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 1) / 6)
    assert (metrics['energy/known'], metrics['energy/ood']) == (1.0, 101.0)


def test_bad_input_of_the_classifier_and_its_metric_is_named():
    cfg = example('ood_ebm-convnext-t_in1k')
    shrink_convnext(cfg.model)
    cfg.model.backbone.frozen_stages = 0
    with pytest.raises(ValueError, match=r'the backbone would train \(downsample_layers.0.0.weight'):
        MODELS.build(cfg.model)
    assert issubclass(EnergyClassifier, MODELS.get('ImageClassifier'))
    with pytest.raises(KeyError, match="type='mmebm.EnergyClassifier'"):
        OODEnergyMetric(data_root='a').process(None, [dict(img_path='a/b.png')])
    with pytest.raises(ValueError, match='0 of 2 images lie in data/ood'):
        scored(known=[0.0, 1.0], ood=[])


# Others' backbones


def installed(name, folder):
    """A config of an installed package."""
    path = folder / 'installed.py'
    path.write_text(f'_base_ = {name!r}')
    return Config.fromfile(path)


@pytest.mark.parametrize(
    ('name', 'downstream', 'tiny', 'width'),
    [
        (
            'ebm_mit-b0_in1k',
            'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
            dict(embed_dims=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
            16,
        ),
        (
            'ebm_pvt-v2-b0_in1k',
            'mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py',
            dict(embed_dims=4, num_layers=[1, 1, 1, 1]),
            32,
        ),
    ],
)
def test_backbones_of_other_packages_train_and_fit_these_packages_configs(
    name, downstream, tiny, width, tmp_path, monkeypatch
):
    cfg = example(name)
    weights = MODELS.build(cfg.model.backbone).to('meta').state_dict()
    target = installed(downstream, tmp_path)
    with DefaultScope.overwrite_default_scope(target.default_scope):
        backbone = MODELS.build(dict(target.model.backbone, init_cfg=None)).to('meta')
    backbone.load_state_dict(weights, strict=True)

    monkeypatch.setitem(TINY_BACKBONES, cfg.model.backbone.type, tiny)
    monkeypatch.setitem(TINY_WIDTHS, cfg.model.backbone.type, width)
    runner = Runner.from_cfg(shrink(cfg, str(tmp_path)))
    reached = set()
    for key, p in runner.model.named_parameters():
        p.register_hook(lambda gradient, key=key: reached.add(key) if gradient.isfinite().all() else None)
    runner.train()
    assert reached == {key for key, _ in runner.model.named_parameters()}


# The energy of the inputs of other trainings


@pytest.fixture(scope='module')
def energy_model(tmp_path_factory):
    """A tiny pretraining's config and checkpoint, as paths, and its model."""
    folder = tmp_path_factory.mktemp('energy')
    cfg = Config.fromfile(FOLDER / 'ebm_vit-b_in1k.py')
    cfg.model.backbone.update(TINY_BACKBONES['VisionTransformer'])
    cfg.model.head.in_channels = TINY_WIDTHS['VisionTransformer']
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    config, checkpoint = str(folder / 'tiny.py'), str(folder / 'tiny.pth')
    Path(config).write_text(f'model = {cfg.model.to_dict()}\ndata_preprocessor = {cfg.data_preprocessor.to_dict()}\n')
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint, model


def expected_energy(model, images, size):
    """Mean energy of BGR images (C, H, W), resized and normalised here by ImageNet's constants."""
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    squares = [interpolate(i[None].float(), (size, size), mode='bilinear', antialias=True)[0] for i in images]
    with torch.no_grad():
        return model.energy(torch.stack([(i.flip(0) - mean) / std for i in squares])).mean().item()


def tiny_pspnet(shapes):
    cfg = example('input-energy_pspnet_r50_ade20k')
    cfg.model.update(pretrained=None)
    cfg.model.backbone.update(depth=18, base_channels=8, stem_channels=8)
    cfg.model.decode_head.update(in_channels=64, channels=8)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    replace_data_root(cfg, cfg.data_root, str(shapes / 'ade20k'))
    for step in cfg.train_dataloader.dataset.pipeline:
        step.update({key: (SIZE, SIZE) for key in ('scale', 'crop_size') if key in step})
    cfg.model.data_preprocessor.size = (SIZE, SIZE)
    return cfg


def tiny_faster_rcnn(shapes):
    cfg = example('input-energy_faster-rcnn_r50_coco')
    cfg.model.backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.model.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=10)
    replace_data_root(cfg, cfg.data_root, str(shapes / 'coco'))
    dataset = cfg.train_dataloader.dataset
    dataset.metainfo = dict(classes=make_shapes.CLASSES)
    for step in dataset.pipeline:
        step.update({key: (SIZE, SIZE) for key in ('scale',) if key in step})
    return cfg


@pytest.mark.parametrize('tiny', [tiny_pspnet, tiny_faster_rcnn])
def test_input_energy_is_logged_and_training_is_bitwise_the_same(tiny, shapes, energy_model, tmp_path):
    config, checkpoint, model = energy_model
    weights = []
    for with_hook in (True, False):
        cfg = tiny(shapes)
        hook, _ = cfg.custom_hooks  # and progress
        hook.update(config=config, checkpoint=checkpoint, interval=2, size=32)
        cfg.custom_hooks = [hook] if with_hook else []
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            runner = one_epoch(cfg, tmp_path / str(with_hook), f'{tiny.__name__}{tmp_path.name}')
            batches = record_batches(runner)
            runner.train()
        weights.append(runner.model.state_dict())
        if with_hook:
            energies, _ = runner.message_hub.get_scalar('train/input_energy').data
    for name, weight in weights[0].items():
        assert weight.equal(weights[1][name]), name
    assert len(batches) == 2
    assert energies == pytest.approx([expected_energy(model, batches[1], 32)], rel=1e-4)
    logs = [json.loads(line) for path in tmp_path.glob('True/*/vis_data/scalars.json') for line in path.open()]
    assert [row['input_energy'] for row in logs if 'input_energy' in row] == pytest.approx(energies)


def record_batches(runner):
    """The images of each training batch, as the data loader gives them."""
    batches, train_step = [], runner.model.train_step

    def recording(data, optim_wrapper):
        batches.append([image.clone() for image in data['inputs']])
        return train_step(data, optim_wrapper)

    runner.model.train_step = recording
    return batches


def test_the_hook_takes_the_name_of_a_config(tmp_path):
    model = MODELS.build(Config.fromfile(FOLDER / 'ebm_vit-t_shapes.py').model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    hook = InputEnergyHook('ebm_vit-t_shapes', str(tmp_path / 'a.pth'), size=32)
    runner = type('Runner', (), dict(model=model, train_dataloader=None))
    hook.before_train(runner)
    images = torch.rand(2, 3, 32, 32) * 255
    with torch.no_grad():
        expected = model.eval().energy((images.flip(1) - 127.5) / 64)
    torch.testing.assert_close(hook.energies(images), expected)
    with pytest.raises(FileNotFoundError, match='"ebm_vit-t_shape", and no config of that name'):
        InputEnergyHook('ebm_vit-t_shape', str(tmp_path / 'a.pth')).before_train(runner)


def test_bad_input_of_the_hook_is_named(energy_model, tmp_path):
    config, checkpoint, model = energy_model
    with pytest.raises(ValueError, match='InputEnergyHook: interval must be a whole number of at least 1, not 0'):
        InputEnergyHook(config, checkpoint, interval=0)
    hook = InputEnergyHook(config, checkpoint, size=32)
    hook.model = model
    with pytest.raises(TypeError, match='not of several views'):
        hook.energies([torch.zeros(2, 3, 32, 32)])
    with pytest.raises(TypeError, match='not of several views'):
        hook.energies(dict(sup=[]))
    runner = type('Runner', (), dict(model=model, train_dataloader=None))
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        InputEnergyHook(config, str(tmp_path / 'nowhere.pth')).before_train(runner)
    other = tmp_path / 'other.py'
    other.write_text("model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=10))")
    with pytest.raises(TypeError, match='ImageClassifier, which has no energy'):
        InputEnergyHook(str(other), checkpoint).before_train(runner)
    other.write_text(f'_base_ = {config!r}\nmodel = dict(backbone=dict(arch=dict(num_layers=1)))')
    with pytest.raises(ValueError, match='another architecture.*unexpected: backbone.layers.1'):
        InputEnergyHook(str(other), checkpoint).before_train(runner)
