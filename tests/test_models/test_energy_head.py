import pytest
import torch

from mmebm.models import EnergyHead
from mmebm.models.heads.energy_head import LinearEnergy, MLPEnergy, QuadraticEnergy, as_tokens
from mmebm.models.patches import half_squared_distance


def test_linear_energy_closed_form():
    energy = LinearEnergy(3)
    energy.weight.data = torch.tensor([[1.0, -2.0, 0.5]])
    torch.testing.assert_close(energy(torch.tensor([[2.0, 1.0, 4.0]])), torch.tensor([2.0]))


def test_quadratic_energy_closed_form():
    energy = QuadraticEnergy(2, 3)
    energy.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    energy.bias.data = torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(energy(torch.tensor([[3.0, 4.0]])), torch.tensor([(9.0 + 16.0 + 64.0) / 2]))


def test_mlp_energy_closed_form():
    energy = MLPEnergy(1, 1)
    energy[0].weight.data.fill_(1.0), energy[0].bias.data.zero_(), energy[2].weight.data.fill_(2.0)
    gelu_of_1 = 0.8413447460685429  # the normal distribution function at 1
    torch.testing.assert_close(energy(torch.tensor([[1.0]])), torch.tensor([2 * gelu_of_1]))


@pytest.mark.parametrize(
    'features', [torch.ones(2, 6), torch.ones(2, 5, 6), torch.ones(2, 6, 3, 4), torch.ones(2, 3, 4, 6)]
)
def test_layouts_of_features(features):
    head = EnergyHead(6, kind='linear', over='pooled')
    head.energies[0].weight.data = torch.arange(6.0)[None]
    torch.testing.assert_close(head(features), torch.full((2,), 15.0))


def test_feature_map_tokens_keep_their_channels():
    feature_map = torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(as_tokens(feature_map, 6)[1, 5], feature_map[1, :, 1, 1])


def test_pooled_and_token_energies():
    tokens = torch.randn(2, 5, 4)
    pooled, summed = EnergyHead(4, 'linear', over='pooled'), EnergyHead(4, 'linear', over='tokens')
    summed.load_state_dict(pooled.state_dict())
    torch.testing.assert_close(summed(tokens), 5 * pooled(tokens))  # equal for a linear energy, but for the count
    quadratic = EnergyHead(4, kind='quadratic', over='tokens')
    torch.testing.assert_close(quadratic(tokens), sum(quadratic(tokens[:, i]) for i in range(5)))


def test_energies_of_stages_add_up():
    head = EnergyHead([2, 3], kind='linear', over='pooled')
    head.energies[0].weight.data, head.energies[1].weight.data = torch.ones(1, 2), torch.ones(1, 3)
    unused, first, last = torch.zeros(4, 9), torch.ones(4, 2, 8, 8), torch.ones(4, 3, 4, 4)
    torch.testing.assert_close(head((unused, first, last)), torch.full((4,), 5.0))


@pytest.mark.parametrize('kind', ['linear', 'mlp', 'quadratic'])
@pytest.mark.parametrize('over', ['pooled', 'tokens'])
def test_energies_add_up_in_float32_under_autocast(kind, over):
    """In bfloat16 the sum over 1,000 tokens would be wrong by some parts in a thousand."""
    head, token = EnergyHead(6, kind=kind, over=over), torch.randn(2, 1, 6).bfloat16().float()
    with torch.autocast('cpu', torch.bfloat16):
        single, energies = head(token), head(token.expand(-1, 1000, -1))
    assert energies.dtype == torch.float32
    torch.testing.assert_close(energies, single * (1000 if over == 'tokens' else 1), rtol=1e-5, atol=0)


def test_distances_add_up_in_float32():
    values, predicted = torch.randn(2, 50, 60), torch.randn(2, 50, 60).bfloat16()
    expected = (values.double() - predicted.double()).square().sum((1, 2)) / 2
    torch.testing.assert_close(half_squared_distance(values, predicted).double(), expected, rtol=1e-6, atol=0)


def test_loss_is_that_of_its_config():
    head = EnergyHead(3, loss=dict(type='mmebm.RestorationLoss', kind='l2'))
    clean = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(head.loss(clean + 2, clean, clean + 3), dict(loss=torch.tensor(4.0)))


@pytest.mark.parametrize(
    ('features', 'message'),
    [
        ((torch.ones(2, 5),), r'in_channels is 4, but the backbone returns features of shape \(2, 5\)'),
        ((), 'returns 0: set its out_indices'),
    ],
)
def test_wrong_features_are_named(features, message):
    with pytest.raises(ValueError, match=message):
        EnergyHead(4)(features)


@pytest.mark.parametrize('setting', [dict(kind='cubic'), dict(over='tokenz')])
def test_unknown_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting.values()))):
        EnergyHead(4, **setting)


def stages(*widths):
    return [torch.randn(2, width, generator=torch.Generator().manual_seed(width)) for width in widths]


def test_a_stage_of_several_tensors_counts_as_that_many():
    """Conformer's last stage is a pooled map and a class token."""
    head = EnergyHead(in_channels=[3, 5], kind='quadratic')
    first, second, third = stages(4, 3, 5)
    torch.testing.assert_close(head(([first], [second, third])), head([first, second, third]))


@pytest.mark.parametrize(
    ('feats', 'error', 'message'),
    [
        (
            (stages(3, 5),),
            ValueError,
            r'last stage of the backbone is 2 tensors, \(2, 3\) and \(2, 5\); set in_channels',
        ),
        (dict(last=torch.zeros(2, 5)), TypeError, 'a tensor of features or a sequence of these, not dict'),
        ((torch.zeros(2, 5), torch.zeros(2, 5).long()), TypeError, 'not torch.int64'),
        ((torch.zeros(2, 5), None), TypeError, 'not NoneType'),
        ((), ValueError, 'the backbone returns 0'),
    ],
    ids=str,
)
def test_features_that_are_none_are_refused(feats, error, message):
    with pytest.raises(error, match=message):
        EnergyHead(in_channels=5)(feats)


@pytest.mark.parametrize('width', [0, -4, 8.0])
def test_a_hidden_layer_without_width_is_refused(width):
    with pytest.raises(ValueError, match=f'hidden_channels must be a whole number of at least 1, not {width}'):
        EnergyHead(16, hidden_channels=width)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(in_channels=16, kind='linear', hidden_channels=64), 'leave out hidden_channels'),
        (dict(in_channels=0), 'in_channels must be a whole number of at least 1, not 0'),
        (dict(in_channels=16.0), 'in_channels must be a whole number of at least 1, not 16.0'),
        (dict(in_channels=[8, '16']), "in_channels must be a whole number of at least 1, not '16'"),
    ],
)
def test_widths_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        EnergyHead(**options)
