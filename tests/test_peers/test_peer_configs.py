"""The methods beside EBM: on the same images, in the same backbone, by mmpretrain's own classes."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner, set_random_seed
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample

import mmebm.models.peers  # noqa: F401
from mmebm.commands import make_shapes
from mmebm.experiments.comparison.tokenizer_config import use_untrained
from mmebm.launch.machine import adapt_to_cpu
from mmebm.launch.options import replace_data_root

FOLDER = Path(__file__).parents[2] / 'configs/peers'
VIT = [
    'ebm',
    'ebm-fast',
    'ebm-nce',
    'ebm-patches',
    'mae',
    'simmim',
    'beit',
    'beit-dalle',
    'maskfeat',
    'supervised',
    'finetune',
]
VIT += ['ebm-patches-4views', 'ebm-patches-whitened', 'mae-whitened', 'mae-4views', 'mae-places']
VIT += ['cim-respix', 'cim-revdet']
CONVNEXT = ['ebm', 'spark', 'cim-respix', 'cim-revdet', 'supervised', 'finetune']
DEEP = ['ebm', 'ebm-fast', 'ebm-patches', 'ebm-patches-whitened', 'mae', 'mae-whitened', 'simmim', 'beit', 'maskfeat']
DEEP += ['mae-places', 'supervised', 'finetune']
METHODS = {'vit-w128': VIT, 'vit-w128-d12': DEEP, 'convnext-w32': CONVNEXT}
CONFIGS = [f'{name}_{backbone}_32px' for backbone, names in METHODS.items() for name in names]
PRETRAINING = [name for name in CONFIGS if not name.startswith('finetune')]
OPTIMIZER = dict(type='AdamW', lr=1e-3)

EVERYWHERE = [*CONFIGS, 'tokenizer_32px']


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Ten folders of classes in train/ and val/, 32 pixels."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes.main([str(folder), '--layout', 'imagenet', '--train', '20', '--val', '10', '--image-size', '32'])
    return folder


def load(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    if name.startswith(('beit', 'cim')):
        use_untrained(cfg)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if 'training_step' in cfg.model:
        cfg.model.training_step = dict(compile=False)
    return cfg


def beside(name, method):
    """The config of another method for the same backbone."""
    return f'{method}_{name.partition("_")[2]}'


def build(name):
    cfg = load(name)
    cfg.model.backbone.pop('init_cfg', None) if name.startswith('finetune') else None
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def test_every_config_is_tested():
    assert sorted(EVERYWHERE) == sorted(path.stem for path in FOLDER.glob('*.py'))


@pytest.mark.parametrize('name', EVERYWHERE)
def test_header_says_what_was_run(name):
    header = (FOLDER / f'{name}.py').read_text().split('"""')[1]
    for field in ('Paper:', 'Command:', 'Hardware:', 'Time:', 'Expect:', f'configs/peers/{name}.py'):
        assert field in header


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in EVERYWHERE if 'dalle' not in name])
def test_one_step_at_full_size(name, shapes, tmp_path):
    """As shipped, but for a batch of four; DALL-E's tokenizer alone takes half a gigabyte."""
    cfg = load(name)
    if name.startswith('finetune'):
        cfg.model.backbone.init_cfg = None
        cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
        cfg.update(test_cfg=None, test_dataloader=None, test_evaluator=None)
    replace_data_root(cfg, cfg.data_root, str(shapes))
    cfg.train_dataloader.update(batch_size=4, num_workers=0)
    cfg.train_dataloader.dataset.indices = 4
    cfg.optim_wrapper.type = 'OptimWrapper'  # mmengine's AmpOptimWrapper needs a GPU
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key, None)
    cfg.train_cfg.max_epochs = 1
    cfg.update(work_dir=str(tmp_path), experiment_name=f'{tmp_path.name}{name}', log_level='WARNING')
    cfg.update(randomness=dict(seed=0), test_cfg=None, test_dataloader=None, test_evaluator=None)
    runner = Runner.from_cfg(cfg)
    gradients = {}
    for parameter_name, p in runner.model.named_parameters():
        if p.requires_grad:
            p.register_hook(lambda g, name=parameter_name: gradients.__setitem__(name, g))
    runner.train()
    wanted = {n for n, p in runner.model.named_parameters() if p.requires_grad and not n.startswith('target_gen')}
    assert wanted - set(gradients) == set()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # The tokenizer of BEiT and CIM is not trained on.
    assert not [n for n in gradients if n.startswith(('target_generator', 'tokenizer'))]
    assert runner.message_hub.get_scalar('train/loss').current() > 0


def test_loss_of_beit_with_dalle():
    cfg = load('beit-dalle_vit-w128_32px')
    model = MODELS.build(cfg.model)
    mask = torch.zeros(8, 8, dtype=torch.long)
    mask[:3] = 1
    with torch.no_grad():
        target = model.target_generator(torch.rand(1, 3, 64, 64))
        loss = model.loss([torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 64)], [DataSample(mask=mask)])['loss']
    assert tuple(target.shape) == (1, 8192, 8, 8)
    assert loss.item() == pytest.approx(math.log(8192), rel=0.1)  # before training every token is as likely


@pytest.mark.parametrize('name', [name for name in PRETRAINING if 'vit' in name])
def test_weights_are_those_of_the_vit_that_is_fine_tuned(name):
    expected = build(beside(name, 'finetune')).backbone
    result = expected.load_state_dict(build(name).backbone.state_dict(), strict=False)
    assert result.missing_keys == []
    with_token = name.startswith(('simmim', 'beit', 'maskfeat'))
    assert result.unexpected_keys == (['mask_token'] if with_token else [])


@pytest.mark.parametrize('name', DEEP)
def test_blocks_of_the_deep_vit(name):
    model = build(f'{name}_vit-w128-d12_32px')
    assert len(model.backbone.layers) == 12


def test_decoder_of_mae_begins_alike_at_any_depth():
    shallow, deep = (build(f'mae_{backbone}_32px').neck for backbone in ('vit-w128', 'vit-w128-d12'))
    weights = {name: p for name, p in shallow.named_parameters() if p.dim() == 2}
    assert len(weights) == 3 * 4 + 2  # four of each block, into the decoder and out of it
    for name, p in deep.named_parameters():
        if name in weights:
            assert p.std().item() == pytest.approx(weights[name].std().item(), rel=0.05)


@pytest.mark.parametrize('name', [name for name in PRETRAINING if 'convnext' in name])
def test_weights_are_those_of_the_convnext_that_is_fine_tuned(name):
    expected = build('finetune_convnext-w32_32px').backbone
    result = expected.load_state_dict(build(name).backbone.state_dict(), strict=False)
    # SparK's features leave the backbone without a norm, and its decoder has them instead.
    assert result.missing_keys == (['norm3.weight', 'norm3.bias'] if name.startswith('spark') else [])
    assert result.unexpected_keys == []


@pytest.mark.parametrize('name', [name for name in PRETRAINING if 'vit' in name])
def test_unmasked_features_are_those_of_the_vit_that_is_fine_tuned(name):
    model, vit = build(name).eval(), build(beside(name, 'finetune')).eval().backbone
    vit.load_state_dict(model.backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (features,) = model.extract_feat(images)
        (expected,) = vit(images)
    if name.startswith('supervised'):  # behind its neck
        assert features.equal(expected.mean((2, 3)))
    elif name.startswith('cim'):  # which reads a map
        assert features.equal(expected)
    else:
        assert features[:, 1:].equal(expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize('name', CONFIGS)
def test_terms_are_equal(name):
    """Batch, order, data, learning rate and schedule; fine-tuning has a schedule of its own."""
    cfg, ours = load(name), load(beside(name, 'ebm'))
    assert {k: v for k, v in cfg.train_dataloader.items() if k != 'dataset'} == {
        k: v for k, v in ours.train_dataloader.items() if k != 'dataset'
    }
    for key in ('type', 'data_root', 'data_prefix', 'with_label'):
        assert cfg.train_dataloader.dataset[key] == ours.train_dataloader.dataset[key]
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == 1
    assert cfg.resume is False
    if not name.startswith('finetune'):
        assert cfg.param_scheduler == ours.param_scheduler
        assert cfg.train_cfg.max_epochs == ours.train_cfg.max_epochs == 30
        hooks = ['mmebm.EpochSeedHook', 'mmebm.NonFiniteLossHook', 'mmebm.ProgressHook']
        hooks += ['mmebm.PatchWhiteningHook'] if 'whitened' in name else []
        hooks += ['mmebm.NotLearningHook'] if name.startswith(('ebm_', 'ebm-fast', 'ebm-nce')) else []
        assert [hook['type'] for hook in cfg.custom_hooks] == hooks


@pytest.mark.filterwarnings('ignore:No GPU here')
@pytest.mark.parametrize('name', [name for name in PRETRAINING if not name.startswith('tokenizer')])
def test_backbones_begin_and_are_optimized_alike(name):
    """Standard deviations of the initial weights, and learning rate, betas, weight decay and clipping of every one."""
    decay_ratio = 6 if name.startswith('supervised') else 1  # as its header says
    described = []
    for one in (beside(name, 'ebm'), name):
        model, cfg = build(one), load(one)
        adapt_to_cpu(cfg)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
        names = {id(p): name for name, p in model.backbone.named_parameters() if p.requires_grad}
        options = {
            names[id(p)]: (group['lr'], *group['betas'], group['weight_decay'])
            for group in optimizer.param_groups
            for p in group['params']
            if id(p) in names
        }
        # Of the small ones, deviations differ more by chance.
        deviations = {
            name: pytest.approx(p.std().item(), rel=0.05 + p.numel() ** -0.5)
            for name, p in model.backbone.named_parameters()
            if p.dim() > 1
        }
        described.append((options, deviations, cfg.optim_wrapper.get('clip_grad')))
    (options, deviations, clip), (other_options, other_deviations, other_clip) = described
    # EBM's positions are not trained, and it has no token in place of patches; SparK has no last norm.
    extra = {'mask_token', 'pos_embed', 'norm3.weight', 'norm3.bias'}
    assert other_options.keys() - extra == options.keys() - extra
    for weight in options.keys() & other_options.keys():
        *same, decay = options[weight]
        assert other_options[weight] == pytest.approx((*same, decay_ratio * decay))
    assert other_clip == clip == dict(max_norm=3.0)
    for weight in deviations.keys() - {'cls_token'}:
        assert other_deviations[weight].expected == deviations[weight]


@pytest.mark.parametrize('name', EVERYWHERE)
def test_augmentation_is_the_same_but_for_masks(name, shapes):
    """At the same seed the same pixels come out, whatever the method draws behind them."""
    ours = load('ebm-patches_vit-w128_32px')
    expected = [dict(step) for step in ours.train_dataloader.dataset.pipeline[:-1]]
    assert [step['type'] for step in expected] == ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip']
    cfg = load(name)
    assert [dict(step) for step in cfg.train_dataloader.dataset.pipeline[:3]] == expected
    images = []
    for one in (ours, cfg):
        replace_data_root(one, one.data_root, str(shapes))
        dataset = DATASETS.build(one.train_dataloader.dataset)
        set_random_seed(0)
        images.append(dataset[3]['inputs'])
    clean, inputs = images
    if not isinstance(inputs, torch.Tensor):  # EBM of a CNN has the corrupted image first, BEiT the tokenizer's second
        inputs = inputs[1 if name.startswith('ebm') else 0]
    assert inputs.equal(clean)


def test_two_views_of_beit(shapes):
    for name, size in (('beit_vit-w128_32px', 32), ('beit-dalle_vit-w128_32px', 64)):
        cfg = load(name)
        replace_data_root(cfg, cfg.data_root, str(shapes))
        sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
        seen, target = sample['inputs']
        assert tuple(target.shape) == (3, size, size)
        assert seen.equal(target) == (size == 32)
        assert int(sample['data_samples'].mask.sum()) == 25


@pytest.mark.parametrize('name', [name for name in PRETRAINING if name.startswith('cim')])
def test_generator_of_cim(name):
    """Half as wide and deep as the ViT; 35 of 64 patches masked; clipped apart."""
    cfg, model = load(name), build(name)
    trunk = model.generator.backbone
    assert (trunk.embed_dims, len(trunk.layers), model.generator.num_masked) == (64, 2, 35)
    assert cfg.optim_wrapper.constructor == 'mmebm.ClipGeneratorApart'
    assert model.generator.vocabulary == load('tokenizer_32px').model.num_embed == 512


def test_masks_have_the_stated_share(shapes):
    for name, masked in (('simmim', 40), ('maskfeat', 25), ('beit', 25)):
        cfg = load(f'{name}_vit-w128_32px')
        replace_data_root(cfg, cfg.data_root, str(shapes))
        mask = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples'].mask
        assert (tuple(mask.shape), int(mask.sum())) == ((8, 8), masked)
