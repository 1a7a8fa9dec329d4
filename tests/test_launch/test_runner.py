import uuid

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn

from mmebm.launch.runner import CheckedRunner


class Images(torch.utils.data.Dataset):
    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return dict(inputs=torch.ones(2))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.layer(inputs).sum()) if mode == 'loss' else []


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def loader(number, sampler='DefaultSampler', **options):
    sampler = dict(type=sampler, shuffle=False)
    return dict(batch_size=4, num_workers=0, dataset=Images(number), sampler=sampler,
                collate_fn=dict(type='default_collate'), **options)  # fmt: skip


def runner(tmp_path, train, train_cfg=None, schedule=None, **options):
    return CheckedRunner(
        model=Model(),
        work_dir=str(tmp_path),
        train_dataloader=train,
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=schedule,
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='WARNING',
        **options,
    )


ITERATIONS = dict(by_epoch=False, max_iters=2)
COSINE = dict(type='CosineAnnealingLR', convert_to_iter_based=True)


@pytest.mark.parametrize('schedule', [None, COSINE])
@pytest.mark.parametrize('train_cfg', [None, ITERATIONS])
def test_fewer_images_than_a_batch_that_is_dropped(tmp_path, train_cfg, schedule):
    message = (
        r'train_dataloader has no batch: 3 of its 3 .*batch_size=4 is dropped.*train_dataloader\.batch_size=3 or less'
    )
    with pytest.raises(ValueError, match=message):
        runner(tmp_path, loader(3, drop_last=True), train_cfg, schedule).train()
    assert not [*tmp_path.glob('*.pth')]


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_no_images(tmp_path, sampler):
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset \(Images\) has no images.*filter_cfg'):
        runner(tmp_path, loader(0, sampler), ITERATIONS).train()


def test_what_is_repeated_or_not_dropped_trains(tmp_path):
    trained = runner(tmp_path / 'a', loader(3), schedule=COSINE)
    trained.train()
    assert trained.iter == 2
    trained = runner(tmp_path / 'b', loader(3, 'InfiniteSampler', drop_last=True), ITERATIONS)
    trained.train()
    assert trained.iter == 2


@pytest.mark.parametrize('train_cfg', [dict(by_epoch=True, max_epochs=0), dict(by_epoch=False, max_iters=0)])
def test_no_steps(tmp_path, train_cfg):
    with pytest.raises(ValueError, match=r'The training has no step: .*max_epochs=[01] and 0 iterations'):
        runner(tmp_path, loader(8), train_cfg).train()


def test_more_batches_to_accumulate_than_there_are_are_named(tmp_path):
    cfg = dict(optim_wrapper=dict(accumulative_counts=7))
    with pytest.raises(ValueError, match='change once.*accumulative_counts=7 .* the training has 6; set fewer'):
        runner(tmp_path, loader(12), cfg=cfg).train()
    cfg['optim_wrapper']['accumulative_counts'] = 6
    runner(tmp_path, loader(12), cfg=cfg).train()


def test_nothing_to_validate_or_to_test_on(tmp_path):
    validation = dict(val_dataloader=loader(0), val_cfg=dict(), val_evaluator=[Nothing()])
    with pytest.raises(ValueError, match=r'val_dataloader\.dataset \(Images\) has no images'):
        runner(tmp_path, loader(8), **validation).train()
    testing = dict(test_dataloader=loader(3, drop_last=True), test_cfg=dict(), test_evaluator=[Nothing()])
    with pytest.raises(ValueError, match='test_dataloader has no batch'):
        runner(tmp_path, loader(8), **testing).test()


def test_a_schedule_that_ends_elsewhere_is_warned_of(tmp_path, capfd):
    runner(tmp_path, loader(8), schedule=[dict(COSINE, end=5)]).train()
    assert 'does not end with the training: CosineAnnealingLR goes on to iteration 10, but training ends' in ''.join(
        capfd.readouterr()
    )


def test_a_warm_up_of_one_step_is_left_out(tmp_path):
    warm_up = dict(type='LinearLR', start_factor=0.001, end=0.5, convert_to_iter_based=True)
    trained = runner(tmp_path, loader(8), schedule=[warm_up, dict(COSINE, begin=0.5)])
    trained.train()
    assert len(trained.param_schedulers) == 1
    assert trained.param_schedulers[0].base_values == [0.1]
