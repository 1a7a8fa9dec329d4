"""JSON and YAML configs: the same as Python's, but no code."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmebm.config_files import config_folder, find_config

SHIPPED = (
    'ebm_vit-s_in1k',
    'coco/mask-rcnn_ebm-vit-b_coco',
    'ade20k/upernet_ebm-vit-b_ade20k',
    'peers/mae_vit-w128_32px',
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path('evil.py').write_text('open("ran", "w")\n')
    yield
    assert not Path('ran').exists()


@pytest.mark.parametrize('ending', ['json', 'yaml'])
@pytest.mark.parametrize('name', SHIPPED)
def test_a_shipped_config_is_the_same_as_data(name, ending):
    config = Config.fromfile(find_config(name))
    config.dump(f'dumped.{ending}')
    read = Config.fromfile(f'dumped.{ending}').to_dict()
    assert json.dumps(read, sort_keys=True) == json.dumps(config.to_dict(), sort_keys=True)  # JSON has no tuples


@pytest.mark.parametrize('base', ['mmebm::ebm_vit-s_in1k', str(config_folder() / 'ebm_vit-s_in1k.py'), './own.yaml'])
def test_what_a_config_may_inherit_from(base):
    Path('own.yaml').write_text('_base_: mmebm::ebm_vit-s_in1k\n')
    Path('a.json').write_text(json.dumps(dict(_base_=base, data_root='x')))
    config = Config.fromfile('a.json')
    assert config.data_root == 'x' and config.model.type == 'mmebm.EBMAlgorithm'


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(model=dict(type='os.system', command='touch ran')), r"model\.type='os\.system' names a Python module"),
        (dict(hooks=[dict(type='{{$ABSENT:os.system}}')]), r"hooks\.0\.type='os\.system' names a Python module"),
        (dict(model=dict(type='evil')), r"model\.type='evil' is a Python module"),
        (dict(nms=dict(type="__import__('os')")), 'is no name of a type'),
        (dict(model=dict(type='mmengine.dump', obj=1, file='ran')), 'is no type, but a function'),
        (dict(hooks=[dict(type='RFSearchHook')]), 'evaluates its options as code'),
        (dict(optim_wrapper=dict(constructor='evil.X')), r"optim_wrapper\.constructor='evil\.X' names a Python module"),
        (dict(default_scope='evil'), "default_scope='evil' is a package that would be imported"),
        (dict(custom_imports=dict(imports=['mmebm', 'evil'])), 'custom_imports imports evil'),
        (dict(_base_='evil.py'), r'inherits from .*evil\.py, a Python file'),
        (dict(_base_='{{$ABSENT:evil.py}}'), r'inherits from .*evil\.py, a Python file'),
        (dict(a=dict(dtype='int if 1 else 2')), r"a\.dtype='int if 1 else 2' would be evaluated"),
        (dict(tokenizer=dict(trust_remote_code=True)), 'downloads and runs code'),
        (dict(dataset=dict(ann_file='a.pkl')), r"dataset\.ann_file='a\.pkl' would be unpickled"),
    ],
)
@pytest.mark.parametrize('ending', ['json', 'yml'])
def test_what_would_run_code_is_refused(config, message, ending):
    Path(f'a.{ending}').write_text(json.dumps(config))  # which is YAML too
    with pytest.raises(ValueError, match=rf'a\.{ending} is refused.*{message}.*write the config as a \.py file'):
        Config.fromfile(f'a.{ending}')


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a.yaml', 'a: !!python/object/apply:os.system ["touch ran"]', "constructor for the tag '.*os.system'"),
        ('a.yaml', 'a: [', 'ParserError'),
        ('a.yaml', '', 'holds nothing'),
        ('a.json', '[1, 2]', 'holds a list'),
        ('a.json', '{', 'JSONDecodeError: Expecting property name'),
        ('a.json', '{"a": "\udcff"}', 'UnicodeDecodeError'),
    ],
)
def test_files_that_are_no_config(name, text, message):
    Path(name).write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match=rf'{name} (cannot be read as a config|is no config).*{message}'):
        Config.fromfile(name)
