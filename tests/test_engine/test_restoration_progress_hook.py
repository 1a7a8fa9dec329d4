import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from tiny import build_ebm, tiny_cim, tiny_vit

from mmebm.datasets.load_image import BrokenImageError
from mmebm.engine.hooks.restoration_progress_hook import (
    RestorationProgressHook,
    energies_of,
    images_of,
    measured,
    progress,
    restored_groups,
    sound_indices,
    which_curve,
)
from mmebm.visualization.figures import draw_energies
from mmebm.visualization.restoration_sheet import compose, error_map, pictures_of, take_apart

NOISE = dict(type='mmebm.GaussianNoise', sigma=50.0, seed=0)
GREY = dict(type='mmebm.Grayscale', seed=0)


def shapes(size, *corruptions, image_size=16):
    """Config of held-out Shapes, once with each corruption, or bare."""
    pairs = [[dict(type='mmebm.CorruptedPair', corruption=corruption)] for corruption in corruptions] or [[]]
    pack = dict(type='PackInputs', meta_keys=('sample_idx', 'corruption') if corruptions else ('sample_idx',))
    sets = [
        dict(type='mmebm.Shapes', size=size, split='val', image_size=image_size, pipeline=[*pair, pack])
        for pair in pairs
    ]
    return dict(type='ConcatDataset', datasets=sets)


def train(work_dir, name, hooks, epochs=2):
    loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True))
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    runner = Runner(
        model=dict(
            type='mmebm.EBMAlgorithm',
            backbone=tiny_vit(img_size=16),
            head=dict(type='mmebm.EnergyHead', in_channels=16),
            num_steps=3,
            data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
        ),
        work_dir=str(work_dir / name),
        train_dataloader=dict(dataset=shapes(8, NOISE), collate_fn=dict(type='default_collate'), **loader),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        custom_hooks=hooks,
        visualizer=dict(type='Visualizer', vis_backends=backends, name=name),
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.name}_{name}',
        cfg=dict(custom_hooks=hooks, experiment_name=f'{work_dir.name}_{name}'),
    )
    runner.train()
    return runner


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    pytest.importorskip('tensorboard')
    folder = tmp_path_factory.mktemp('progress')
    hook = dict(type='mmebm.RestorationProgressHook', dataset=shapes(6, NOISE, GREY), num_images=10, num_pictures=2)
    return train(folder, 'with', [hook])


@pytest.fixture
def record(trained):
    return [json.loads(line) for line in record_file(trained).read_text().splitlines()]


def record_file(runner):
    return Path(runner.log_dir, 'vis_data', 'restorations.json')


def images_shown(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, RestorationProgressHook))
    return hook.images


def test_training_is_bitwise_the_same_with_and_without_the_hook(trained, tmp_path):
    plain = train(tmp_path, 'without', [])
    for (name, weight), expected in zip(trained.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(weight, expected), name


def test_tensorboard_has_pictures_histograms_and_scalars_of_every_epoch(trained):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = accumulator.EventAccumulator(str(record_file(trained).parent), size_guidance=dict(images=0))
    events.Reload()
    tags = events.Tags()
    assert {'restorations_denoise', 'restorations_color', 'energies'} <= set(tags['images'])
    pictures = events.Images('restorations_denoise')
    assert [picture.step for picture in pictures] == [0, 1, 2]
    # Two images; clean, corrupted, two steps, restored and error, 16 pixels each with gaps of 2.
    assert (pictures[0].height, pictures[0].width) == (2 * 18 - 2, 6 * 18 - 2)
    values = [event.value for event in events.Scalars('held_out/denoise/psnr_restored_db')]
    logged = trained.message_hub.get_scalar('held_out/denoise/psnr_restored_db').data[0]
    assert values == pytest.approx(logged.tolist()) and len(values) == 3


def test_the_record_has_the_energies_of_the_images(trained, record):
    assert [(entry['step'], entry['unit']) for entry in record] == [(0, 'epoch'), (1, 'epoch'), (2, 'epoch')]
    groups = record[-1]['corruptions']
    assert list(groups) == ['color', 'denoise']
    assert [len(group['clean']) for group in groups.values()] == [5, 5]  # ten of twelve, evenly
    trained.model.eval()
    first = trained.model.val_step(default_collate([images_shown(trained)[0]]))[0]  # a noisy one
    found = groups['denoise']
    assert found['clean'][0] == pytest.approx(first.clean_energy.item(), rel=1e-5)
    assert found['corrupted'][0] == pytest.approx(first.energies[0].item(), rel=1e-5)
    assert found['restored'][0] == pytest.approx(first.energies[-1].item(), rel=1e-5)


def test_the_picture_can_be_taken_apart(trained, record):
    group = record[-1]['corruptions']['denoise']
    assert group['columns'] == ['clean', 'corrupted', 'step 1', 'step 2', 'restored', 'error']
    picture = np.asarray(Image.open(record_file(trained).parent / 'vis_image' / group['picture']))
    rows = take_apart(picture, group['rows'], group['columns'])
    clean = images_shown(trained)[0]['inputs'][1].permute(1, 2, 0).numpy()
    assert np.array_equal(rows[0]['clean'], clean)
    assert rows[1]['error'].shape == (16, 16, 3)


def test_the_log_says_which_curve_means_progress(trained):
    log = next(Path(trained.log_dir).glob('*.log')).read_text()
    assert (
        'What means progress: restoration improves while held_out/*/psnr_restored_db rises above psnr_corrupted_db '
        "(10 images of the hook's data set); nothing here measures the features" in log
    )
    assert log.count('Progress after ') == 3
    values = trained.message_hub.log_scalars
    gain = (
        values['held_out/denoise/psnr_restored_db'].data[0][-1]
        - values['held_out/denoise/psnr_corrupted_db'].data[0][-1]
    )
    assert f'denoise {gain:+.2f} dB' in log.split('Progress after 2 epochs: ')[1].splitlines()[0]


def test_patches_are_one_group_and_have_energies():
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    backbone = dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=16, patch_size=4)
    head = dict(
        type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), patch_size=4, embed_dims=16, num_heads=2
    )
    preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3)
    model = MODELS.build(
        dict(type='mmebm.PatchEBM', backbone=backbone, head=head, data_preprocessor=preprocessor)
    ).eval()
    groups = restored_groups(model, DATASETS.build(shapes(5)), range(5))
    assert {name: len(group) for name, group in groups.items()} == {'all': 5}
    assert {'all/psnr_restored_db', 'all/auroc'} <= set(measured(groups))
    assert len(energies_of(groups['all'])['corrupted']) == 5


def test_a_model_without_energy_or_restored_images_shows_what_it_has():
    model = MODELS.build(tiny_cim('revdet')).eval()
    groups = restored_groups(model, DATASETS.build(shapes(4)), range(4))
    assert energies_of(groups['all']) == {}
    values = measured(groups)
    assert 'all/detection_auroc' in values and not [name for name in values if 'psnr' in name]
    assert list(pictures_of(groups['all'][0][0])) == [
        'clean',
        'corrupted',
        'masked',
        'replaced_map',
        'detected_map',
    ]


def test_energies_of_patches_have_keys_of_their_own():
    """Two of four patches are corrupted; of the four pairs with the others, three have them in order."""
    clean = torch.zeros(3, 8, 8)
    corrupted = clean.clone()
    corrupted[:, :4] = 9.0
    sample = DataSample(
        token_energies=torch.tensor([[3.0, 1.0], [2.0, 0.0]]), corrupted=corrupted, clean=clean, corruption='sort'
    )
    assert measured({'sort': [(sample, [])]}) == {'sort/token_corrupted_share': 0.5, 'sort/token_auroc': 0.75}


def test_of_many_steps_four_are_shown():
    model = build_ebm(num_steps=9, data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3)).eval()
    groups = restored_groups(model, DATASETS.build(shapes(1, GREY, image_size=8)), range(1))
    ((sample, steps),) = groups['color']
    assert len(steps) == 8
    assert list(pictures_of(sample, steps))[2:6] == ['step 1', 'step 3', 'step 6', 'step 8']


def test_error_map_has_a_fixed_scale():
    """Black without error; the same colour for the same error, whatever else the image holds; clipped at half range."""
    clean = torch.zeros(3, 1, 4)
    restored = torch.tensor([0.0, 64.0, 127.5, 255.0]).expand(3, 1, 4)
    colors = error_map(restored, clean)[0].tolist()
    assert max(colors[0]) <= 4 and colors[2] == colors[3]
    assert error_map(restored[..., :2], clean[..., :2])[0].tolist() == colors[:2]


def test_sheets_of_images_that_are_not_square():
    rows = [
        {name: np.full((4, 6, 3), 10 * row + column, np.uint8) for column, name in enumerate('abc')} for row in (1, 2)
    ]
    sheet = compose(rows)
    assert sheet.shape == (10, 22, 3)
    apart = take_apart(sheet, 2, list('abc'))
    assert apart[1]['c'].tolist() == rows[1]['c'].tolist()


def config(tmp_path, **sections):
    for name in ('here', 'other'):
        (tmp_path / name).mkdir()
    made = {
        f'{name}_dataloader': dict(dataset=dict(type='mmebm.ImageFolder', data_root=str(tmp_path / root)))
        for name, root in sections.items()
    }
    return ConfigDict(made)


def test_images_of_the_validation_come_first(tmp_path):
    dataset, source = images_of(config(tmp_path, train='other', val='here', test='here'))
    assert dataset['data_root'].endswith('here') and source == 'the data set of val_dataloader'


def test_without_held_out_images_those_of_training_are_said_to_be_shown(tmp_path):
    dataset, source = images_of(config(tmp_path, train='here', test='missing'))
    assert dataset['data_root'].endswith('here')
    assert source.startswith('the training images (test_dataloader names ') and 'missing' in source


def test_training_images_that_are_tested_on_are_not_called_held_out(tmp_path):
    cfg = config(tmp_path, train='here', test='here')
    assert images_of(cfg)[1] == 'the training images, which test_dataloader reads too'
    cfg.test_dataloader.dataset.data_prefix = 'val'
    assert images_of(cfg)[1] == 'the data set of test_dataloader'


def test_training_images_are_read_as_in_training(tmp_path):
    cfg = config(tmp_path, train='here', test='missing')
    cfg.train_dataloader.dataset.update(type='mmebm.HFImages', split='train', pipeline=['of training'])
    cfg.test_dataloader.dataset.update(pipeline=['of a test'])
    dataset, _ = images_of(cfg)
    expected = dict(type='mmebm.HFImages', data_root=str(tmp_path / 'here'), split='train')
    assert dataset == dict(expected, pipeline=['of a test'], test_mode=True)


def test_without_any_images_the_hook_warns_and_measures_nothing(tmp_path):
    said = []
    cfg = config(tmp_path, train='here')
    assert images_of(cfg) is None
    hook = RestorationProgressHook()
    runner = SimpleNamespace(cfg=cfg, logger=SimpleNamespace(warning=said.append), train_dataloader=object(), epoch=0)
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    assert len(said) == 1 and 'measures nothing: neither val_dataloader nor test_dataloader' in said[0]


@pytest.mark.parametrize('name', ['num_images', 'num_pictures', 'interval'])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f'Hook: {name} must be a whole number of at least 1, not 0'):
        RestorationProgressHook(**{name: 0})


@pytest.mark.parametrize(
    ('hooks', 'words'),
    [
        ([], 'nothing here measures the features'),
        ([dict(type='mmebm.FrozenFeatureHook', bank=dict(a=1))], 'features improve while frozen/linear_top1 rises'),
        ([dict(type='mmebm.FrozenFeatureHook')], 'features gain dimensions while frozen/rankme rises'),
    ],
)
def test_what_measures_the_features_is_named(hooks, words):
    assert words in which_curve(SimpleNamespace(cfg=dict(custom_hooks=hooks)), 4, 'x')


def test_a_corruption_may_have_a_slash_in_its_name():
    metrics = {'held_out/jpeg/50/psnr_corrupted_db': 20.0, 'held_out/jpeg/50/psnr_restored_db': 21.5}
    assert progress(SimpleNamespace(message_hub=SimpleNamespace(log_scalars={})), metrics) == 'jpeg/50 +1.50 dB'


def test_energies_that_are_not_finite_are_not_drawn():
    energies = dict(clean=[0.0, float('nan')], corrupted=[float('inf'), 1.0])
    finite = dict(clean=[0.0], corrupted=[1.0])
    assert np.array_equal(draw_energies(dict(mask=energies)), draw_energies(dict(mask=finite)))
    draw_energies(dict(mask=dict(clean=[float('nan')], corrupted=[float('nan')])))


def test_samples_without_a_clean_image_have_no_error():
    sample = DataSample()
    sample.set_field(torch.zeros(3, 4, 4), 'restored')
    assert list(pictures_of(sample)) == ['restored']


class _Broken:
    """Of ten images every third is broken."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index % 3 == 0:
            raise BrokenImageError(f'{index}.jpg: is truncated')
        return index


def test_broken_images_are_left_out():
    assert sound_indices(_Broken(), 64) == [1, 2, 4, 5, 7, 8]
    assert sound_indices(_Broken(), 4) == []  # 0, 3, 6 and 9
