"""The generator's masks, draws and losses."""

import math

import pytest
import torch
from mmpretrain.registry import MODELS
from tiny import tiny_cim

from mmebm.models.tokenizers.generator import draw_tokens


def build(**options):
    torch.manual_seed(0)
    generator = MODELS.build(tiny_cim(generator=options)['generator'])
    generator.init_weights()
    return generator


def batch(num=4):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(num, 3, 16, 16, generator=rng), torch.randint(0, 27, (num, 4, 4), generator=rng)


def test_draws_have_the_probabilities_of_the_softmax():
    logits, number = torch.tensor([0.0, 1.0, -1.0, 2.0]), 100_000
    for temperature in (1.0, 0.5, 2.0):
        drawn = draw_tokens(logits.expand(number, 4), temperature, torch.Generator().manual_seed(0))
        shares = drawn.bincount(minlength=4) / number
        expected = (logits / temperature).softmax(dim=0)
        assert ((shares - expected).abs() < 3 * (expected * (1 - expected) / number).sqrt()).all()


def test_a_low_temperature_takes_the_most_probable_token():
    logits = torch.randn(100, 9)
    assert draw_tokens(logits, 1e-6).equal(logits.argmax(dim=1))


def test_draws_repeat_with_their_generator_and_leave_others_alone():
    logits = torch.randn(50, 9)
    state = torch.get_rng_state()
    first, again, other = (draw_tokens(logits, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)
    assert torch.get_rng_state().equal(state)


def test_half_precision_draws_in_float32():
    """In bfloat16, noise and logits would tie, and the first of equal tokens would win."""
    drawn = draw_tokens(torch.zeros(100_000, 512, dtype=torch.bfloat16)[:20_000], 1.0, torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=512).float()
    assert abs(counts[:256].sum() - 10_000) < 5 * math.sqrt(20_000) / 2


def test_only_masked_tokens_are_replaced():
    generator = build(mask_ratio=0.55)
    images, golden = batch()
    proposal = generator(images, golden)
    assert proposal.masked.sum(dim=(1, 2)).tolist() == [9] * 4  # 0.55 * 16 = 8.8
    assert proposal.tokens[~proposal.masked].equal(golden[~proposal.masked])
    assert (proposal.replaced & ~proposal.masked).sum() == 0
    assert proposal.replaced.equal(proposal.tokens != golden) and proposal.replaced.any()
    assert proposal.logits.shape == (4, 9, 27)


def test_other_choices_at_the_same_positions():
    """The most probable token whatever the temperature; tokens of equal probability whatever the logits."""
    images, golden = batch(200)
    proposals = {}
    for choice in ('drawn', 'most_probable', 'uniform'):
        generator = build(choice=choice, temperature=3.0)
        generator.head.bias.data[5] = 2.0  # which is then the most probable one
        proposals[choice] = generator.eval()(images, golden, torch.Generator().manual_seed(0))
    for choice, proposal in proposals.items():
        assert proposal.places.equal(proposals['drawn'].places)
        assert proposal.tokens[~proposal.masked].equal(golden[~proposal.masked])
        chosen = proposal.tokens[proposal.masked]
        share = (chosen == 5).float().mean().item()
        uniform, number = 1 / 27, len(chosen)
        if choice == 'most_probable':
            assert share == 1
        if choice == 'uniform':
            assert abs(share - uniform) < 4 * (uniform / number) ** 0.5
            assert chosen.min() == 0 and chosen.max() == 26
        if choice == 'drawn':
            assert uniform + 4 * (uniform / number) ** 0.5 < share < 0.2  # e^(2/3) / (26 + e^(2/3)) = 0.07


def test_masks_reach_every_position_equally():
    places = build(mask_ratio=0.25).draw_places(torch.zeros(4000, 4, 4), torch.Generator().manual_seed(0))
    shares = places.flatten().bincount(minlength=16) / 4000
    assert ((shares - 0.25).abs() < 4 * math.sqrt(0.25 * 0.75 / 4000)).all()
    assert all(len(set(row.tolist())) == 4 for row in places[:50])


def test_masked_patches_are_not_read():
    generator = build().eval()
    images, golden = batch()
    logits, proposal = [], None
    for scale in (1.0, 5.0):
        rng = torch.Generator().manual_seed(0)
        if proposal is not None:
            pixels = proposal.masked.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)
            images = torch.where(pixels, images * scale + 1, images)
        proposal = generator(images, golden, rng)
        logits.append(proposal.logits)
    torch.testing.assert_close(logits[0], logits[1])
    assert not generator(images + 1, golden, torch.Generator().manual_seed(0)).logits.allclose(logits[0])


def test_loss_and_accuracy_of_masked_tokens():
    generator = build()
    images, golden = batch()
    proposal = generator(images, golden)
    losses = generator.loss(proposal)
    rows, columns = proposal.places // 4, proposal.places % 4
    targets = torch.stack([golden[n, rows[n], columns[n]] for n in range(4)])
    log = proposal.logits.log_softmax(dim=2)
    expected = -torch.stack([log[n, m, targets[n, m]] for n in range(4) for m in range(9)]).mean()
    torch.testing.assert_close(losses['loss_generator'], expected)
    assert abs(losses['loss_generator'] - math.log(27)) < 0.1  # of a uniform guess
    assert losses['generator_accuracy'] == (proposal.logits.argmax(2) == targets).float().mean()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(mask_ratio=0.0), 'mask_ratio=0.0 masks 0 of 16 patches'),
        (dict(mask_ratio=0.99), 'mask_ratio=0.99 masks 16 of 16 patches'),
        (dict(mask_ratio=None), 'mask_ratio must be a number, not None'),
        (dict(mask_ratio='half'), "mask_ratio must be a number, not 'half'"),
        (dict(mask_ratio=float('nan')), 'mask_ratio must be a number, not nan'),
        (dict(temperature=0.0), 'temperature must be a positive number, not 0.0'),
        (dict(temperature='hot'), "temperature must be a positive number, not 'hot'"),
        (dict(vocabulary='27'), "vocabulary must be a whole number of at least 1, not '27'"),
        (dict(choice='best'), r"choice must be one of \['drawn', 'most_probable', 'uniform'\], not 'best'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
