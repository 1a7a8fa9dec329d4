import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import multiprocessing, nn

from mmebm.engine.hooks import FrozenFeatureHook

VIT = dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=16, patch_size=4)
MAE = dict(
    type='MAE',
    backbone=dict(type='MAEViT', mask_ratio=0.75, drop_path_rate=0.2, **VIT),
    neck=dict(
        type='MAEPretrainDecoder',
        num_patches=16,
        patch_size=4,
        embed_dim=16,
        decoder_embed_dim=16,
        decoder_depth=1,
        decoder_num_heads=2,
        mlp_ratio=2.0,
    ),
    head=dict(type='MAEPretrainHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    data_preprocessor=dict(mean=[128.0] * 3, std=[64.0] * 3),
)
SIMMIM = dict(
    type='SimMIM',
    backbone=dict(
        type='SimMIMSwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]),
        img_size=16,
        out_indices=(1,),
        stage_cfgs=dict(block_cfgs=dict(window_size=2)),
    ),
    neck=dict(type='SimMIMLinearDecoder', in_channels=16, encoder_stride=8),
    head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)),
    data_preprocessor=dict(mean=[128.0] * 3, std=[64.0] * 3),
)


class Images(torch.utils.data.Dataset):
    """Two classes of images, dark and bright, with noise from each of the three random generators."""

    def __init__(self, size, labelled=True, classes=None, views=0):
        self.size = size
        self.views = views
        self.labelled = labelled
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        level = 40 + 160 * (index % 2)
        noise = torch.randint(40, (3, 16, 16)) + random.randrange(8) + int(np.random.randint(8))
        sample = DataSample(mask=torch.rand(4, 4) < 0.5)
        if self.labelled:
            sample.set_gt_label(index % 2)
        clean = (level + noise).to(torch.uint8)
        return dict(inputs=[*[clean // 2] * self.views, clean] if self.views else clean, data_samples=sample)


def loader(size, shuffle=False, collate='default_collate', **options):
    return dict(
        dataset=Images(size, **options),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type=collate),
    )


def train(model, work_dir, hook, name, epochs=3):
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader(8, shuffle=True),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[hook] if hook else [],
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.name}_{name}',
        log_level='WARNING',
    )
    runner.train()
    return runner


def hook_config(**kwargs):
    evaluator = [dict(type='mmebm.KNNAccuracy', k=3), dict(type='mmebm.LinearProbeAccuracy')]
    return dict(type='mmebm.FrozenFeatureHook', bank=loader(10), queries=loader(6), evaluator=evaluator, **kwargs)


@pytest.mark.parametrize('model', [MAE, SIMMIM], ids=['mae', 'simmim'])
def test_training_is_bitwise_the_same_with_and_without_the_hook(model, tmp_path):
    measured = train(model, tmp_path, hook_config(), 'with')
    plain = train(model, tmp_path, None, 'without')
    for (name, weight), expected in zip(measured.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(weight, expected), name
    history, counts = measured.message_hub.get_scalar('frozen/knn_top1').data
    assert len(history) == 4
    assert history[0] == 100  # brightness already tells the classes apart
    assert measured.message_hub.get_scalar('frozen/linear_top1').current() == 100


def test_interval_first_and_last_epoch_and_their_records(tmp_path):
    runner = train(MAE, tmp_path, hook_config(interval=2), 'interval')
    (records,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in records.read_text().splitlines()]
    assert [r['step'] for r in records if 'frozen/knn_top1' in r] == [0, 2, 3]
    (own,) = tmp_path.glob('*/vis_data/frozen.json')  # analyze_logs reads the file of training, which has no such lines
    assert len(own.read_text().splitlines()) == 3
    assert 'frozen' not in (own.parent / f'{runner.timestamp}.json').read_text()

    runner = train(MAE, tmp_path, hook_config(interval=5, before_train=False), 'last')
    history, _ = runner.message_hub.get_scalar('frozen/knn_top1').data
    assert len(history) == 1


def test_interval_of_iterations(tmp_path):
    train(MAE, tmp_path, hook_config(interval=4, by_epoch=False), 'iterations')  # six, two an epoch
    (records,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in records.read_text().splitlines()]
    assert [r['step'] for r in records if 'frozen/knn_top1' in r] == [0, 4, 6]


def test_a_resumed_training_is_not_measured_as_an_initial_one():
    hook = FrozenFeatureHook(loader(5), loader(3))
    hook.measure = lambda runner: pytest.fail('measured')
    hook.before_train(SimpleNamespace(train_dataloader=None, iter=4))


class Level(BaseModel):
    """Its only feature is the mean level of an image, in 0..255."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Dropout().eval()
        self.trained = nn.Dropout()

    def extract_feat(self, images):
        assert not torch.is_grad_enabled() and not any(module.training for module in self.modules())
        return self.trained(images.float()).mean(dim=(2, 3))[:, :1]

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


class Census(BaseMetric):
    """Numbers of bank and queries, and of bright ones by label and by feature among them."""

    default_prefix = 'census'

    def process(self, data_batch, data_samples):
        self.results.extend((s['subset'], int(s['gt_label']), float(s['features'])) for s in data_samples)

    def compute_metrics(self, results):
        metrics = {}
        for subset in ('train', 'test'):
            rows = [row[1:] for row in results if row[0] == subset]
            metrics[subset] = (len(rows), sum(label for label, _ in rows), sum(level > 120 for _, level in rows))
        return metrics


CENSUS = {'census/train': (5, 2, 2), 'census/test': (3, 1, 1)}


def measure_level(**kwargs):
    hook = FrozenFeatureHook(**{**dict(bank=loader(5), queries=loader(3), evaluator=[dict(type=Census)]), **kwargs})
    return hook.measure(SimpleNamespace(model=Level(), seed=0))


def test_modes_and_random_states_are_put_back():
    model = Level()
    hook = FrozenFeatureHook(loader(5), loader(3), [dict(type=Census)])
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    assert hook.measure(SimpleNamespace(model=model, seed=0)) == CENSUS
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (model.training, model.frozen.training, model.trained.training) == (True, False, True)
    assert torch.is_grad_enabled()


def measure_in_process(rank, world_size, store, results):
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world_size)
    results.put(measure_level())
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_count_every_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where mmengine's processes exchange results
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [
        context.Process(target=measure_in_process, args=(rank, 2, tmp_path / 'store', results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    measured = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert measured == [CENSUS, CENSUS]


def test_a_target_generators_preprocessor_gives_the_first_view():
    from mmpretrain.models import TwoNormDataPreprocessor

    model = Level()
    model.data_preprocessor = TwoNormDataPreprocessor([0] * 3, [1] * 3, second_mean=[999] * 3, second_std=[1] * 3)
    hook = FrozenFeatureHook(loader(5), loader(3), [dict(type=Census)])
    assert hook.measure(SimpleNamespace(model=model, seed=0)) == CENSUS


def test_without_labels_the_spectra_are_measured(tmp_path):
    pipeline = [
        dict(type='mmebm.CorruptedPair', corruption=dict(type='mmebm.PatchMask', patch_size=4), num_views=4),
        dict(type='PackInputs'),
    ]
    queries = loader(40) | dict(dataset=dict(type='mmebm.Shapes', size=40, image_size=16, pipeline=pipeline))
    runner = train(MAE, tmp_path, dict(type='mmebm.FrozenFeatureHook', queries=queries), 'unlabelled', epochs=1)
    (records,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in records.read_text().splitlines()]
    measured = [record for record in records if 'frozen/rankme' in record]
    assert [record['step'] for record in measured] == [0, 1]
    keys = {'frozen/rankme', 'frozen/alpha_req', 'frozen/lidar'}
    assert all(record.keys() == keys | {'step'} for record in measured)
    assert all(1 < record[key] <= 16 for record in measured for key in ('frozen/rankme', 'frozen/lidar'))
    assert runner.message_hub.get_scalar('frozen/lidar').current() == measured[-1]['frozen/lidar']


class Views(Census):
    """Numbers of images and of views, their mean level, and that of clean images."""

    def process(self, data_batch, data_samples):
        self.results.extend((len(s.get('views', [])), float(s['features'])) for s in data_samples)
        assert all(s['views'].mul(2).sub(s['features']).abs().max() <= 1 for s in data_samples if 'views' in s)

    def compute_metrics(self, results):
        return dict(views=[views for views, _ in results], bright=sum(level > 120 for _, level in results))


@pytest.mark.parametrize('labelled', [True, False])
@pytest.mark.parametrize('views', [0, 3])
def test_without_a_bank_the_last_of_an_images_views_is_the_clean_one(views, labelled):
    options = dict(queries=loader(5, views=views, labelled=labelled), evaluator=[dict(type=Views)])
    assert measure_level(bank=None, **options) == {'census/views': [views] * 5, 'census/bright': 2}


def test_a_target_generators_preprocessor_gives_each_of_the_views():
    from mmpretrain.models import TwoNormDataPreprocessor

    model = Level()
    model.data_preprocessor = TwoNormDataPreprocessor([0] * 3, [1] * 3, second_mean=[999] * 3, second_std=[1] * 3)
    hook = FrozenFeatureHook(queries=loader(5, views=3), evaluator=[dict(type=Views)])
    assert hook.measure(SimpleNamespace(model=model, seed=0))['census/views'] == [3] * 5


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(bank=loader(5, labelled=False)), 'no gt_label'),
        (dict(queries=loader(3, collate='pseudo_collate')), 'default_collate'),
        (dict(interval=0), 'FrozenFeatureHook: interval must be a whole number of at least 1, not 0'),
        (dict(queries=None), 'no queries'),
        (dict(queries=loader(3, views=1)), 'with a bank, no CorruptedPair'),
        (
            dict(bank=loader(5, classes=['cat', 'dog']), queries=loader(3, classes=('dog',))),
            'same classes.* in one of them alone: cat$',
        ),
    ],
)
def test_bad_input_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        measure_level(**kwargs)
