"""What the step time benchmark counts and writes; what it times is not for a test."""

import json

import pytest

from benchmarks import step_time
from benchmarks.output import REPOSITORY, replace_between_marks


@pytest.mark.parametrize(
    ('variant', 'forwards'),
    [
        ('supervised', 3),  # forward 1, backward 2
        ('ebm', 6),  # forward 1, inner gradient 1, backward through both 4
        ('ebm-micro-batch', 6),
        ('ebm-2-steps', 12),
        ('ebm-token-dropping', 3),  # half the tokens
        ('ebm-low-memory', 11),  # gradient 2, directional derivative 2, backward 4, recomputed 1 and 2
    ],
)
def test_flops_in_forward_passes(variant, forwards):
    setting = step_time.SETTINGS['cpu']['vit-tiny-p4-32']
    ratio = step_time.count_flops(variant, setting) / step_time.count_flops('forward', setting)
    assert ratio == pytest.approx(forwards, rel=0.05)


def test_flops_of_the_forward_pass():
    setting = step_time.SETTINGS['cpu']['vit-tiny-p4-32']
    tokens, width = 65, 192
    block = 2 * (12 * width**2 * tokens + 2 * tokens**2 * width)  # linear layers, attention
    rest = 2 * 64 * width * 48 + 2 * tokens * (width**2 + width)  # patch embedding, energy
    assert step_time.count_flops('forward', setting) == pytest.approx(12 * block + rest, rel=1e-3)


def test_other_settings_rows_are_kept(tmp_path):
    path = tmp_path / 'rows.json'
    common = dict(device='cpu', precision='fp32', batch=4, variant='ebm', seconds=1)
    rows = [common | dict(setting=setting) for setting in ('vit-base-p16-224', 'vit-tiny-p4-32')]
    path.write_text(json.dumps(rows))
    again = rows[1] | dict(seconds=2)
    assert step_time.with_earlier_settings(path, [again]) == [rows[0], again]
    assert step_time.with_earlier_settings(tmp_path / 'none.json', [again]) == [again]


def test_table_replaces_what_stands_between_its_marks(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- t -->\nold\n<!-- /t -->\nb\n')
    replace_between_marks(page, 't', 'new')
    assert page.read_text() == 'a\n<!-- t -->\nnew\n<!-- /t -->\nb\n'
    with pytest.raises(ValueError, match='needs one <!-- u -->'):
        replace_between_marks(page, 'u', 'new')


@pytest.mark.parametrize(
    'page, name',
    [('docs/speed.md', 'step_time_cpu'), ('docs/speed.md', 'step_time_gpu'), ('docs/results.md', 'downstream')],
)
def test_pages_have_the_marks(page, name):
    text = (REPOSITORY / page).read_text()
    assert text.count(f'<!-- {name} -->') == text.count(f'<!-- /{name} -->') == 1
