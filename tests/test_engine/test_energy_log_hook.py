from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmebm.engine import EnergyLogHook


class Square(BaseModule):
    """Its linear energy over tokens is |x|^2 / 2; it notes of which batches and in which precision it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x):
        autocast = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
        self.asked.append((len(x), autocast, self.training))
        return (x.flatten(2).square().transpose(1, 2),)


def square_energy():
    head = dict(type='mmebm.EnergyHead', in_channels=3, kind='linear', over='tokens')
    model = MODELS.build(dict(type='mmebm.EBMAlgorithm', backbone=Square(), head=head, step_size=0.5))
    model.head.energies[0].weight.data.fill_(0.5)
    return model.train()


def patch_energy():
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    backbone = dict(type='mmebm.PatchSubsetViT', arch=arch, img_size=16, patch_size=4)
    head = dict(
        type='mmebm.PatchEnergyHead', in_channels=16, grid_size=(4, 4), patch_size=4, embed_dims=16, num_heads=2
    )
    return MODELS.build(dict(type='mmebm.PatchEBM', backbone=backbone, head=head))


def batch_of(num_images, num_views=2, size=4):
    """Image n of view v is everywhere n + 1 + v."""
    numbers = torch.arange(1.0, num_images + 1).view(-1, 1, 1, 1).expand(-1, 3, size, size)
    views = [numbers + view for view in range(num_views)]
    return dict(inputs=views, data_samples=[DataSample() for _ in range(num_images)])


class Log(dict):
    def update_scalar(self, name, value):
        self[name] = value


def logged(model, batch, optim_context=lambda model: nullcontext(), batch_idx=9, epoch=24, **options):
    wrapper = SimpleNamespace(optim_context=optim_context)
    runner = SimpleNamespace(
        model=model, iter=100 + batch_idx, optim_wrapper=wrapper, train_dataloader=range(epoch), message_hub=Log()
    )
    EnergyLogHook(interval=10, **options).after_train_iter(runner, batch_idx, batch)
    return runner.message_hub


@pytest.mark.parametrize(('options', 'scored'), [({}, 32), (dict(num_images=2), 2), (dict(num_images=99), 40)])
def test_energies_of_the_first_images_in_closed_form(options, scored):
    model = square_energy()
    found = logged(model, batch_of(40), **options)
    numbers = torch.arange(1.0, scored + 1)
    half = 3 * 4 * 4 / 2
    assert found == {
        'train/energy_corrupted': pytest.approx(half * numbers.square().mean().item()),
        'train/energy_clean': pytest.approx(half * (numbers + 1).square().mean().item()),
        'train/energy_restored': pytest.approx(half * numbers.square().mean().item() / 4),
    }
    assert model.backbone.asked == [(scored, None, False)] * 3
    assert model.backbone.training


def test_the_precision_is_that_of_training():
    @contextmanager
    def in_half_precision(trained):
        assert trained is model
        with torch.autocast('cpu', dtype=torch.bfloat16):
            yield

    model = square_energy()
    logged(model, batch_of(4), in_half_precision)
    assert model.backbone.asked == [(4, torch.bfloat16, False)] * 3
    assert not torch.is_autocast_enabled('cpu')


def test_a_batch_of_one_view():
    model, batch = patch_energy(), batch_of(5, num_views=1, size=16)
    batch['inputs'][0] += torch.randn(5, 3, 16, 16)
    samples = model.eval().val_step(dict(inputs=[batch['inputs'][0][:3]], data_samples=batch['data_samples'][:3]))
    found = logged(model, batch, num_images=3)
    assert found['train/energy_clean'] == pytest.approx(sum(sample.clean_energy.item() for sample in samples) / 3)


@pytest.mark.parametrize(
    ('batch_idx', 'epoch', 'logs'),
    [(8, 24, False), (19, 24, True), (23, 24, False), (6, 7, True), (5, 7, False)],
)
def test_logs_when_the_logger_does(batch_idx, epoch, logs):
    """Every tenth iteration of an epoch, or at the end of a shorter one."""
    assert bool(logged(square_energy(), batch_of(2), batch_idx=batch_idx, epoch=epoch)) == logs


def test_no_images_are_refused():
    for name in ('num_images', 'interval'):
        with pytest.raises(ValueError, match=f'EnergyLogHook: {name} must be a whole number of at least 1, not 0'):
            EnergyLogHook(**{name: 0})
