"""Configs, options and checkpoints that do not fit are answered by a message that names them."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from tiny import ROOT

from mmebm.config_tree import nested
from mmebm.engine import AtomicCheckpointHook
from mmebm.engine.resuming.settings import check_complete
from mmebm.launch.checks.test_parts import check_test_parts
from mmebm.launch.command_line import option
from mmebm.launch.explanations import explained
from mmebm.launch.options import merge_options

BASE = Config.fromfile(ROOT / 'configs/ebm_vit-t_folder.py')
KEYS = [key for key, _ in nested(BASE.to_dict()) if key]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'train_cfg.max_epochs.x': 1},
            r'x=1 does not fit the config: train_cfg.max_epochs is \d+, which has no parts',
        ),
        ({'custom_hooks.type': 'x'}, r'custom_hooks is a list of \d+, so that a number'),
        ({'custom_hooks.99.type': 'x'}, 'below that follows'),
        ({'custom_hooks.0': 5}, r'set keys of custom_hooks.0, as custom_hooks.0.KEY=VALUE'),
        ({'model.backbone': 1, 'model.backbone.depth': 2}, 'model.backbone, which holds it, is set as well'),
        ({'model..x': 1}, 'between dots is empty'),
    ],
)
def test_options_without_a_place(options, message):
    with pytest.raises(ValueError, match=message):
        merge_options(BASE.copy(), options)


TEXTS = st.text(st.characters(blacklist_categories=('Cs',)), max_size=8)
VALUES = st.one_of(TEXTS, st.sampled_from(['1', '-1', 'None', '[1,2]', '(a', '1e400', '{}', 'nan', '[[', '"', '()']))
PLACES = st.one_of(TEXTS, st.sampled_from(KEYS), st.tuples(st.sampled_from(KEYS), TEXTS).map('.'.join))


@pytest.mark.filterwarnings('ignore')
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=2))
@example([('model.type', '')])
@example([('model.type', '.a')])
def test_any_option_is_merged_or_refused_with_its_name(pairs):
    try:
        options = dict(option(f'{key}={value}') for key, value in pairs)
        cfg = BASE.copy()
        with explained([cfg]):
            merge_options(cfg, options)
    except ValueError as error:
        assert any(key in str(error) for key, _ in pairs) or len(str(error)) > 20


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(optimizer={}), 'a.pth cannot be resumed from: optimizer has no param_groups'),
        (dict(meta=dict(iter=1)), 'meta.epoch is None, no number'),
        (dict(meta=None), 'meta is a NoneType, no dict'),
        (dict(message_hub=[]), 'message_hub is a list'),
    ],
)
def test_a_checkpoint_that_is_none_of_mmengine_s(changed, message):
    sound = dict(meta=dict(epoch=1, iter=2), state_dict={}, message_hub={}, optimizer=dict(state={}, param_groups=[]))
    check_complete(sound, 'a.pth')
    check_complete(dict(sound, optimizer=dict(a=sound['optimizer'])), 'a.pth')
    with pytest.raises(ValueError, match=message):
        check_complete(sound | changed, 'a.pth')


def test_a_checkpoint_that_is_no_dict():
    for content in (None, [1, 2]):
        with pytest.raises(ValueError, match='a.pth cannot be resumed from: it has no meta'):
            check_complete(content, 'a.pth')


def test_a_config_without_a_test():
    with pytest.raises(ValueError, match='a.json has no test_dataloader, so there is nothing to test on'):
        check_test_parts(_named(dict(test_dataloader=None, test_cfg={})))


def _named(content):
    cfg = Config(content)
    cfg.__dict__['_filename'] = 'a.json'
    return cfg


def test_an_error_of_a_value_before_the_first_batch_names_the_config():
    def read(cfg):
        return cfg.default_hooks.get('checkpoint')

    cfg = _named(dict(default_hooks=[1]))
    message = r"'list' object has no .* \(in .* -> read of test_hostile.py\)\. Correct it in a.json"
    with pytest.raises(AttributeError, match=message), explained([cfg]):
        read(cfg)


def test_an_error_of_a_training_stays_as_it_is():
    def run_iter():
        raise ValueError('of the training')

    with pytest.raises(ValueError, match='^of the training$'), explained([_named({})]):
        run_iter()


@pytest.mark.parametrize(
    'options', [dict(max_keep_ckpts=None), dict(interval='1'), dict(save_begin=0.5), dict(every_minutes='x')]
)
def test_a_checkpoint_hook_that_would_fail_at_the_first_checkpoint(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f'AtomicCheckpointHook: {name} must be .*, not {value!r}'):
        AtomicCheckpointHook(**options)
