"""McNemar's test of methods on the same images."""

import pytest

from mmebm.experiments.comparison.paired import Discordant, discordant, paired_rows, paired_table


@pytest.mark.parametrize(
    'better, worse, p',
    [
        (10, 2, 2 * (1 + 12 + 66) / 2**12),  # twice the tail of a fair coin
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (5, 0, 2 / 2**5),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_p_of_discordant_pairs(better, worse, p):
    assert Discordant(better, worse).p == pytest.approx(p)


def test_discordant_pairs_are_those_that_one_alone_has_right():
    assert discordant([1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1]) == (2, 1)
    with pytest.raises(ValueError, match='argument 2 is shorter'):
        discordant([1, 1], [1])


def record(method, seed, epoch, linear, finetuned=None):
    correct = dict(linear_top1=linear) | (dict(finetune_top1=finetuned) if finetuned else {})
    return dict(method=method, seed=seed, epoch=epoch, images=[*'abcd'], correct=correct)


@pytest.fixture
def records():
    return [
        record('ebm', 0, 2, [1, 1, 0, 0]),
        record('ebm', 0, 4, [1, 1, 1, 0], [1, 1, 1, 1]),
        record('ebm', 1, 4, [0, 1, 1, 1]),
        record('mae', 0, 4, [0, 0, 0, 1], [1, 1, 1, 1]),
        record('mae', 0, 8, [0, 1, 1, 1]),
        record('mae', 1, 4, [0, 0, 1, 1]),
        record('mae', 2, 4, [0, 0, 0, 0]),
    ]


def test_methods_are_paired_by_seed_and_epoch(records):
    linear, finetuned, last = paired_rows(records, 'mae')
    assert (linear['method'], linear['epoch'], linear['reference'], linear['reference_epoch']) == ('ebm', 4, 'mae', 4)
    assert (linear['quality'], linear['seeds']) == ('linear_top1', [0, 1])
    assert (linear['top1'], linear['reference_top1']) == ([75.0, 75.0], [25.0, 50.0])
    assert (linear['better'], linear['worse']) == ([3, 1], [1, 0])
    assert linear['p'] == [pytest.approx(2 * 5 / 16), 1.0]
    assert (linear['pooled_better'], linear['pooled_worse']) == (4, 1)
    assert (finetuned['quality'], finetuned['seeds'], finetuned['p']) == ('finetune_top1', [0], [1.0])
    assert (last['epoch'], last['reference_epoch'], last['seeds']) == (4, 8, [0])
    assert (last['better'], last['worse']) == ([1], [1])


def test_table_of_pairs(records):
    assert paired_table(paired_rows(records, 'mae')[:1]).splitlines()[2] == (
        '| linear probe, `ebm` after 4, `mae` after 4 | 75.0 ± 0.0 | 37.5 ± 17.7 | 37.5 ± 17.7 | 4 : 1 | 0.62, 1 |'
    )


def test_refuses_pairs_of_other_images(records):
    records[3]['images'] = [*'abce']
    with pytest.raises(ValueError, match='ebm and mae, seed 0: scored on other images'):
        paired_rows(records, 'mae')


def test_no_pairs_without_the_reference(records):
    assert paired_rows(records, 'simmim') == []
