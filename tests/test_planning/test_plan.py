import copy
import json
from ast import literal_eval

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from shrink import shrink
from tiny import grouped
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmebm.commands.plan import main
from mmebm.config_files import find_config
from mmebm.planning.config_facts import (
    autocast_type,
    image_size,
    known_length,
    learning_rate,
    learning_rate_source,
    precision_name,
)
from mmebm.planning.measured_speed import compiled_memory_ratio, guessed_speed, measured_speed, variants_of
from mmebm.planning.memory import GIB, Memory, memory_of, ways_to_fit
from mmebm.planning.step_cost import (
    ALLOCATION_UNIT,
    DryRun,
    GPUAutocast,
    OpCounter,
    build_model,
    can_be_split,
    step_cost,
)

WIDTH, LAYERS, HIDDEN, PATCH, SIDE = 32, 2, 64, 4, 16


@pytest.fixture
def cfg():
    """The smallest config, with a ViT whose FLOPs are easy to write down."""
    cfg = Config.fromfile(find_config('ebm_vit-t_shapes'))
    arch = dict(embed_dims=WIDTH, num_layers=LAYERS, num_heads=2, feedforward_channels=HIDDEN)
    cfg.model.backbone = dict(
        type='VisionTransformer', arch=arch, img_size=SIDE, patch_size=PATCH, out_type='raw', drop_path_rate=0.0
    )
    cfg.model.head.in_channels = WIDTH
    cfg.train_dataloader.batch_size = 4
    return cfg


def cost_of(cfg, dtype=torch.float32, on_gpu=False, **model):
    cfg = copy.deepcopy(cfg)
    cfg.model.update(grouped(model))
    return step_cost(cfg, (SIDE, SIDE), dtype, on_gpu)


def step_flops(in_parts=False):
    """Of a training step and an image, by hand; two a multiply-add."""
    patches, tokens = (SIDE // PATCH) ** 2, (SIDE // PATCH) ** 2 + 1
    embedding = patches * 3 * PATCH**2 * WIDTH
    linear = tokens * (LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN) + WIDTH * WIDTH)
    last = tokens * WIDTH
    attention = LAYERS * 2 * tokens * tokens * WIDTH
    # A product with a weight: itself and the gradient of its input, and of these two the two derivatives each. Whatever
    # is not in parts also has the gradient of the image, which nobody needs. Energies are linear in the last layer. A
    # product of two activations has two gradients at first.
    return 2 * ((5 if in_parts else 6) * embedding + 6 * linear + 3 * last + 9 * attention)


def test_flops_of_a_step_by_hand(cfg):
    assert cost_of(cfg).flops_per_image == step_flops()
    assert cost_of(cfg, micro_batch=2).flops_per_image == step_flops(in_parts=True)
    assert cost_of(cfg, num_steps=3).flops_per_image == 3 * step_flops(in_parts=True)


def test_channels_are_those_of_the_backbone(cfg):
    """With one mean for all of them, as mmpretrain's preprocessors take it, and with none."""
    cfg.model.backbone.in_channels = 5
    patches, more = (SIDE // PATCH) ** 2, 2 * PATCH**2 * WIDTH  # of the embedding
    for preprocessor in (dict(mean=[127.5], std=[60.0]), dict(mean=None, std=None), dict()):
        cfg.model.data_preprocessor = dict(type='SelfSupDataPreprocessor', **preprocessor)
        assert cost_of(cfg).flops_per_image == step_flops() + 2 * 6 * patches * more


def test_flops_of_a_supervised_step_as_torch_counts_them(cfg):
    model, images = build_model(cfg), torch.randn(2, 3, SIDE, SIDE)

    def step():
        model.energy(images).sum().backward()

    with sdpa_kernel(SDPBackend.MATH):  # FlopCounterMode does not know the fused attention of the CPU
        with FlopCounterMode(display=False) as reference:
            step()
        with OpCounter() as counter:
            step()
    assert counter.flops == reference.get_total_flops() > 0


def test_flops_of_other_steps(cfg):
    default = cost_of(cfg).flops_per_image
    assert cost_of(cfg, compile=True).flops_per_image == default
    half = cost_of(cfg, token_dropping=dict(patch_size=PATCH, visible=0.25, corrupted=0.25)).flops_per_image
    assert 0.4 * default < half < 0.6 * default
    # About 3 forward passes for the gradient with recomputation, then 10 for that of the dual pass.
    assert 1.5 * default < cost_of(cfg, low_memory=True).flops_per_image < 2.5 * default


@pytest.mark.parametrize(
    ('optimizer', 'states'),
    [(dict(type='AdamW'), 2), (dict(type='SGD', momentum=0.9), 1), (dict(type='SGD'), 0)],
)
@pytest.mark.parametrize('on_gpu', [True, False])
def test_standing_memory_is_exact(cfg, optimizer, states, on_gpu):
    cfg.optim_wrapper.optimizer = dict(lr=1.0, weight_decay=0.1, **optimizer)
    model = build_model(cfg)

    def size(tensors):
        return sum(-(-t.numel() * t.element_size() // ALLOCATION_UNIT) * ALLOCATION_UNIT for t in tensors)

    cost = cost_of(cfg, on_gpu=on_gpu)
    counters = ALLOCATION_UNIT * len([*model.parameters()]) if optimizer['type'] == 'AdamW' else 0
    assert cost.weights == size([*model.parameters(), *model.buffers()])
    assert cost.gradients == size(model.parameters())
    assert cost.optimizer_states == states * size(model.parameters()) + counters
    assert cost.parameters == cost.trained == sum(p.numel() for p in model.parameters())


def test_frozen_parameters_have_neither_gradients_nor_states(cfg):
    before, after = cost_of(cfg), cost_of(cfg, frozen=['backbone.pos_embed'])
    size = (SIDE // PATCH) ** 2 * WIDTH + WIDTH
    assert before.trained - after.trained == size
    assert before.gradients - after.gradients == -(-4 * size // ALLOCATION_UNIT) * ALLOCATION_UNIT
    assert before.weights == after.weights


@pytest.fixture
def patches_cfg(cfg):
    """The same ViT, which restores patches."""
    arch = cfg.model.backbone.arch
    cfg.model = dict(
        type='mmebm.PatchEBM',
        backbone=dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=SIDE, patch_size=PATCH),
        head=dict(
            type='mmebm.PatchEnergyHead',
            in_channels=WIDTH,
            grid_size=(SIDE // PATCH, SIDE // PATCH),
            patch_size=PATCH,
            embed_dims=16,
            num_heads=2,
        ),
        data_preprocessor=cfg.model.data_preprocessor,
    )
    return cfg


@pytest.mark.parametrize('name', ['cfg', 'patches_cfg'])
def test_fake_steps_use_what_real_ones_use(name, request):
    cfg = request.getfixturevalue(name)
    dry_run = DryRun(cfg, (SIDE, SIDE), torch.float32, on_gpu=False)
    flops, peak = dry_run.step(4)

    with OpCounter() as counter:
        model = build_model(cfg)
        images = torch.randn(model.num_inputs, 4, 3, SIDE, SIDE).unbind()
        counter.flops, counter.peak = 0, counter.now
        losses = model.loss([*images])
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        del losses
    assert counter.flops == flops
    assert counter.peak + dry_run.optimizer_states == pytest.approx(peak, rel=0.01)


def test_peak_grows_with_the_batch_and_in_parts_does_not(cfg):
    dry_run = DryRun(cfg, (SIDE, SIDE), torch.float32, on_gpu=False)
    peaks = [dry_run.step(size)[1] for size in (8, 16, 24)]
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0], rel=0.01)

    cfg.train_dataloader.batch_size = 24
    whole, parts = cost_of(cfg).peak, cost_of(cfg, micro_batch=6).peak
    assert whole == peaks[2]
    assert parts < 0.5 * whole
    # Three parts were run, and the fourth follows from them.
    cfg.model.training_step = dict(micro_batch=6)
    assert DryRun(cfg, (SIDE, SIDE), torch.float32, on_gpu=False).step(24)[1] == pytest.approx(parts, rel=1e-3)


def test_low_memory_takes_less(cfg):
    cfg.model.backbone.arch.num_layers = 8
    cfg.train_dataloader.batch_size = 16
    assert cost_of(cfg, low_memory=True).peak < 0.7 * cost_of(cfg).peak


def test_accumulated_gradients_are_there_all_the_time(cfg):
    before = cost_of(cfg)
    cfg.optim_wrapper.accumulative_counts = 2
    assert before.peak + 0.5 * before.gradients < cost_of(cfg).peak <= before.peak + before.gradients


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_takes_less_memory_and_as_many_flops(cfg, dtype):
    cfg.train_dataloader.batch_size = 64
    full, half = cost_of(cfg), cost_of(cfg, dtype, on_gpu=True)
    assert half.flops_per_image == full.flops_per_image
    assert half.peak < 0.9 * full.peak
    assert half.weights == full.weights


def test_autocast_of_a_gpu_keeps_normalizations_in_float32():
    x, weight = torch.randn(2, 8, dtype=torch.bfloat16), torch.randn(8, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert F.layer_norm(x, (8,)).dtype == torch.bfloat16
        with GPUAutocast():
            assert F.layer_norm(x, (8,)).dtype == x.softmax(dim=1).dtype == torch.float32
            assert F.linear(x, weight).dtype == F.gelu(x).dtype == torch.bfloat16
    with GPUAutocast():
        assert F.layer_norm(x, (8,)).dtype == torch.bfloat16


def test_restoring_patches_reads_half_of_them(patches_cfg):
    cost = cost_of(patches_cfg)
    patches, shown = (SIDE // PATCH) ** 2, (SIDE // PATCH) ** 2 // 2 + 1
    # The backbone alone, forward and backward: half of the patches and the class token. All patches are embedded.
    embedding = patches * 3 * PATCH**2 * WIDTH
    linear = shown * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    attention = LAYERS * 2 * shown * shown * WIDTH
    backbone = 2 * (2 * embedding + 3 * linear + 3 * attention)
    # The head, differentiated twice, comes to about as much beside so small a backbone.
    assert 1.8 * backbone < cost.flops_per_image < 2.1 * backbone
    assert cost.flops_per_image < cost_of(patches_cfg, visible_ratio=0.5).flops_per_image


def test_restoring_patches_can_be_split(patches_cfg):
    patches_cfg.train_dataloader.batch_size = 64
    whole, parts = cost_of(patches_cfg), cost_of(patches_cfg, micro_batch=8)
    assert whole.can_be_split and parts.peak < 0.5 * whole.peak
    assert parts.flops_per_image == pytest.approx(whole.flops_per_image, rel=0.01)


def test_other_methods_are_refused(cfg):
    cfg.model = dict(
        type='SimMIM',
        backbone=dict(type='VisionTransformer', arch='deit-tiny'),
        neck=dict(type='SimMIMLinearDecoder', in_channels=192, encoder_stride=16),
        head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1')),
    )
    with pytest.raises(TypeError, match="EBMAlgorithm.*PatchEBM.*CIM.*not 'SimMIM'"):
        step_cost(cfg, (224, 224), torch.float32, on_gpu=False)


@pytest.mark.parametrize(('gpus', 'expected'), [(8, 1.5e-4 * 4096 / 256), (4, 1.5e-4 * 2048 / 256), (1, 1.5e-4 * 2)])
def test_learning_rate_is_linear_in_the_total_batch(gpus, expected):
    cfg = Config.fromfile(find_config('ebm_vit-b_in1k'))
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts) == (256, 2)
    assert learning_rate(cfg, gpus) == pytest.approx(expected)


def test_learning_rate_without_a_rule_is_the_config_s():
    cfg = Config.fromfile(find_config('ebm_vit-t_shapes'))
    cfg.pop('auto_scale_lr')
    assert learning_rate(cfg, gpus=8) == 3e-3


@pytest.mark.parametrize(
    ('name', 'size', 'length'),
    [
        ('ebm_vit-b_in1k', (224, 224), 1_281_167),
        ('ebm_resnet50_in1k', (224, 224), 1_281_167),
        ('ebm_vit-t_cifar10', (32, 32), 50_000),
        ('ebm_vit-t_shapes', (32, 32), 10_000),
        ('ebm_vit-t_folder', (64, 64), None),
    ],
)
def test_images_of_the_configs(name, size, length):
    cfg = Config.fromfile(find_config(name))
    assert image_size(cfg) == size
    assert known_length(cfg.train_dataloader.dataset) == length


@pytest.mark.parametrize(
    ('folder', 'length'),
    [
        ('/data/ImageNet/train', 1_281_167),
        ('/data/ILSVRC2012/train', 1_281_167),
        ('/imagenet-1k', 1_281_167),
        ('/data/tiny-imagenet/train', None),
        ('/data/imagenet100/train', None),
        ('/data/imagenet21k', None),
    ],
)
def test_only_imagenet_1k_is_known_by_its_folder(folder, length):
    cfg = Config.fromfile(find_config('ebm_vit-b_in1k'))
    cfg.train_dataloader.dataset.data_root = folder
    assert known_length(cfg.train_dataloader.dataset) == length


@pytest.mark.parametrize('wrapped', [lambda d: dict(type='RepeatDataset', times=2, dataset=d),
                                     lambda d: dict(type='ConcatDataset', datasets=[d, d])])  # fmt: skip
def test_image_size_of_wrapped_data_sets(cfg, wrapped):
    inner = dict(type='CustomDataset', pipeline=[dict(type='mmpretrain.RandomCrop', crop_size=448)])
    cfg.train_dataloader.dataset = wrapped(inner)
    assert image_size(cfg) == (448, 448)


def test_amp_with_its_scope_is_amp(cfg):
    cfg.optim_wrapper = dict(type='mmengine.AmpOptimWrapper', dtype='bfloat16')
    assert autocast_type(cfg) == torch.bfloat16


def test_image_size_is_that_of_the_last_crop(cfg):
    pipeline = [dict(type='RandomResizedCrop', scale=160), dict(type='RandomCrop', crop_size=(96, 128))]
    cfg.train_dataloader.dataset.pipeline = pipeline
    assert image_size(cfg) == (96, 128)
    cfg.train_dataloader.dataset.pipeline = [dict(type='Resize', scale=(64, 48))]
    assert image_size(cfg) == (48, 64)
    cfg.train_dataloader.dataset.pipeline = []
    cfg.model.backbone.pop('img_size')
    with pytest.raises(ValueError, match='--image-size'):
        image_size(cfg)


def test_memory_of_several_devices(cfg):
    cost = cost_of(cfg)
    single = memory_of(cfg, cost, gpus=1, ratio=1.0, available=GIB)
    assert single.peak == cost.peak
    assert single.standing == cost.weights + cost.gradients + cost.optimizer_states
    assert memory_of(cfg, cost, gpus=8, ratio=1.0, available=GIB).peak == cost.peak + cost.gradients

    cfg.optim_wrapper.optimizer = dict(
        type='ZeroRedundancyOptimizer', optimizer_type='AdamW', lr=1e-3, weight_decay=0.05
    )
    assert cost_of(cfg) == cost
    sharded = memory_of(cfg, cost, gpus=8, ratio=1.0, available=GIB)
    assert sharded.peak == cost.peak + cost.gradients - cost.optimizer_states * 7 // 8

    compiled = memory_of(cfg, cost, gpus=1, ratio=0.5, available=GIB)
    fixed = cost.weights + cost.optimizer_states
    assert compiled.peak == pytest.approx(fixed + 0.5 * (cost.peak - fixed), abs=1)


def test_ways_to_fit(cfg):
    cfg.train_dataloader.batch_size = 64
    memory = Memory(GIB, GIB, 2 * GIB, GIB, 64 * GIB, available=30 * GIB)  # 21 GiB are left for 64 images
    first, *ways = ways_to_fit(cfg, memory, gpus=8, can_be_split=True)
    assert '69.0 GiB' in first and '27.0 GiB' in first
    assert [way.partition('=')[0].strip() for way in ways] == [
        '--cfg-options model.training_step.micro_batch',
        '--cfg-options model.training_step.low_memory',
        '--cfg-options model.token_dropping.patch_size',
        'in the config: optim_wrapper.optimizer',
    ]
    assert (
        'model.training_step.micro_batch=16' in ways[0]
        and '1.8 GiB less' in ways[3]
        and 'ShardedOptimizerHook' in ways[3]
    )
    _, *ways = ways_to_fit(cfg, memory, gpus=1, can_be_split=False)
    assert 'train_dataloader.batch_size=16 optim_wrapper.accumulative_counts=4' in ways[0]
    assert not any('micro_batch' in way or 'low_memory' in way for way in ways)


@pytest.mark.parametrize('name', ['ebm_vit-s_in1k', 'ebm-mask_vit-s_in1k', 'ebm_vit-t_folder', 'ebm_resnet50_in1k'])
def test_the_model_takes_each_way_to_fit(name, tmp_path):
    cfg = shrink(Config.fromfile(find_config(name)), str(tmp_path))
    cfg.train_dataloader.batch_size = 64
    can = can_be_split(build_model(cfg))
    memory = Memory(GIB, GIB, 2 * GIB, GIB, 64 * GIB, available=30 * GIB)
    _, *ways = ways_to_fit(cfg, memory, gpus=1, can_be_split=can)
    assert ways
    for way in ways:
        changed = copy.deepcopy(cfg)
        options = way.replace('--cfg-options', '').partition(':')[0].split()
        changed.merge_from_dict({key: literal_eval(value) for key, value in (o.split('=') for o in options)})
        build_model(changed)


ROW = dict(device='NVIDIA H200', backbone='base', image_size=224, batch=256, variant='ebm-eager', precision='bf16')
ROWS = [
    ROW | dict(gflops_per_image=200.0, images_per_second=1000.0, peak_memory_ratio=2.0),
    ROW | dict(gflops_per_image=200.0, images_per_second=1500.0, peak_memory_ratio=1.2, variant='ebm-compiled'),
    ROW | dict(gflops_per_image=4.0, images_per_second=20000.0, peak_memory_ratio=2.0, backbone='deit-tiny'),
    ROW | dict(gflops_per_image=200.0, images_per_second=9999.0, peak_memory_ratio=2.0, device='NVIDIA L40S'),
]


def test_speed_is_measured_efficiency():
    speed = measured_speed(ROWS, 'h200', 'bf16', ('ebm-eager',), gflops=100.0)
    assert speed.images_per_second == 2000
    assert speed.efficiency == pytest.approx(200 / 989)
    assert 'base, 224 px, batch 256 on NVIDIA H200' in speed.source
    assert measured_speed(ROWS, 'h200', 'bf16', ('ebm-eager',), gflops=8.0).images_per_second == 10000
    assert measured_speed(ROWS, 'h200', 'bf16', ('ebm-compiled',), gflops=100.0).images_per_second == 3000
    assert measured_speed(ROWS, 'h200', 'fp32', ('ebm-eager',), gflops=100.0).efficiency is None


def test_speed_is_not_invented():
    assert measured_speed(ROWS, 'h200', 'bf16', ('ebm-low-memory',), gflops=100.0) is None
    assert measured_speed(ROWS, 'h100', 'bf16', ('ebm-eager',), gflops=100.0) is None
    assert measured_speed(ROWS, 'l4', 'bf16', ('ebm-eager',), gflops=100.0) is None  # an L40S is none


def test_ratio_of_compiled_memory():
    assert compiled_memory_ratio(ROWS, 'ebm-compiled', gflops=4.0) == pytest.approx(0.6)
    assert compiled_memory_ratio(ROWS[:1], 'ebm-compiled', gflops=4.0) is None
    assert compiled_memory_ratio(ROWS, 'ebm-patches', gflops=4.0) is None


def test_precision_names(cfg):
    assert precision_name(cfg, torch.bfloat16, on_gpu=True) == 'bf16'
    assert precision_name(cfg, torch.float32, on_gpu=True) == 'fp32'
    cfg.custom_hooks = [dict(type='mmebm.MatmulPrecisionHook')]
    assert precision_name(cfg, torch.float32, on_gpu=True) == 'tf32'
    assert precision_name(cfg, torch.float32, on_gpu=False) == 'fp32'


@pytest.fixture
def config_file(cfg, tmp_path):
    cfg.dump(str(tmp_path / 'config.py'))
    return str(tmp_path / 'config.py')


def plan(config_file, tmp_path, *flags):
    main([config_file, '--json', str(tmp_path / 'plan.json'), '--results', str(tmp_path), *flags])
    return json.loads((tmp_path / 'plan.json').read_text())


def test_command_without_measurements(config_file, tmp_path, capsys):
    result = plan(config_file, tmp_path, '--gpu', 'h200', '--gpus', '8', '--image-size', str(SIDE))
    assert result['gflops_per_image'] == round(step_flops() / 1e9, 2)
    assert result['total_batch'] == 32
    assert result['learning_rate'] == 3e-3
    guess = 8 * 0.3 * 67e12 / step_flops()  # of float32, not TF32
    assert result['images_per_second'] == pytest.approx(guess, rel=1e-6) and result['speed_is_guess']
    assert result['hours'] == round(7 * 10_000 / guess / 3600, 2) and result['efficiency'] is None
    assert result['memory_bytes']['fits'] and result['memory_bytes']['available'] == 141 * GIB
    printed = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    assert 'ebm-eager in fp32 has not been measured on h200, and the hours are a guess: run' in printed
    assert 'a guess: 30% of the peak in fp32, 67 TFLOP/s' in printed and 'less than 0.01, a guess' in printed
    assert '8 devices x 4 images = 32' in printed


def test_without_a_known_peak_there_is_no_guess(config_file, tmp_path, capsys):
    result = plan(config_file, tmp_path, '--gpu', 'cpu', '--image-size', str(SIDE))
    assert result['images_per_second'] is result['hours'] is None
    printed = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    assert 'not measured' in printed and 'not known' in printed and '1 device x 4 images = 4' in printed


@pytest.mark.parametrize(('precision', 'rate'), [('bf16', 989), ('fp16', 989), ('tf32', 494.5), ('fp32', 67)])
def test_a_guess_is_a_share_of_the_peak(precision, rate):
    speed = guessed_speed('h200', precision, gflops=100.0)
    assert speed.images_per_second == pytest.approx(0.3 * rate * 1e3 / 100)
    assert speed.is_guess and speed.source == f'a guess: 30% of the peak in {precision}, {rate:g} TFLOP/s'


@pytest.mark.parametrize(
    ('gpus', 'source'),
    [
        (8, "the config's optim_wrapper.optimizer.lr, which is for a total batch of 4096"),
        (1, "the config's optim_wrapper.optimizer.lr=0.0024 is for a total batch of 4096; times 512/4096"),
    ],
)
def test_where_the_learning_rate_is_from(gpus, source):
    cfg = Config.fromfile(find_config('ebm_vit-b_in1k'))
    assert learning_rate_source(cfg, gpus) == source
    cfg.auto_scale_lr = None
    assert learning_rate_source(cfg, gpus) == "the config's optim_wrapper.optimizer.lr"
    cfg.optim_wrapper.optimizer.pop('lr')
    assert learning_rate_source(cfg, gpus) == "the optimiser's default"


def test_command_with_measurements(config_file, tmp_path, capsys):
    rows = [row | dict(precision='fp32') for row in ROWS]
    (tmp_path / 'step_time_gpu.json').write_text(json.dumps(rows))
    flags = (
        '--gpu',
        'h200',
        '--gpus',
        '2',
        '--image-size',
        str(SIDE),
        '--cfg-options',
        'model.training_step.compile=True',
    )
    result = plan(config_file, tmp_path, *flags)
    expected = 2 * 1500 * 200e9 / step_flops()
    assert result['images_per_second'] == pytest.approx(expected, rel=1e-6)
    assert result['hours'] == round(7 * 10_000 / expected / 3600, 2)
    assert result['variant'] == 'ebm-compiled'
    assert not any(note.startswith('Memory') for note in result['notes'])


def test_hours_at_a_given_speed(config_file, tmp_path):
    flags = ('--gpu', 'cpu', '--image-size', str(SIDE), '--images-per-second', '10', '--images', '3600')
    assert plan(config_file, tmp_path, *flags)['hours'] == 0.7


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['ebm_vit-t_shapes', '--gpu', 'voodoo2'], "invalid choice: 'voodoo2'"),
        (['ebm_vit-x', '--gpu', 'h200'], 'No config file "ebm_vit-x"'),
        (['ebm_vit-t_shapes', '--gpu', 'h200', '--gpus', '0'], '--gpus must be positive, not 0'),
        (['ebm_vit-t_shapes', '--gpu', 'h200', '--images', '0'], '--images must be positive, not 0'),
        (['ebm_vit-t_shapes', '--gpu', 'l4', '--images-per-second', '-1'], '--images-per-second must be positive'),
        (
            ['ebm_vit-t_shapes', '--gpu', 'h200', '--cfg-options', 'max_epochs=3'],
            '--cfg-options max_epochs: "max_epochs" is a variable of the config file',
        ),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_corrupted_image_modelling_is_planned():
    """Once differentiated, and with nothing to compute in parts or recompute."""
    cfg = Config.fromfile(find_config('cim-revdet_vit-t_shapes'))
    cost = step_cost(cfg, (32, 32), torch.float32, False)
    assert cost.trained < cost.parameters and not cost.can_be_split
    encoder = 32 * 32 // 4 * 64 * 3 * 16 + 64 * (64 * 64 * 16 + 64 * 32)  # multiplications of the tokenizer
    assert cost.flops_per_image > 2 * encoder
    memory = Memory(weights=1, gradients=1, optimizer_states=1, ddp_buckets=0, step=100 * GIB, available=GIB)
    advice = ' '.join(ways_to_fit(cfg, memory, 1, cost.can_be_split))
    assert 'token_dropping' not in advice and 'training_step' not in advice
    assert variants_of(cfg) == ('cim',)  # which was not measured
