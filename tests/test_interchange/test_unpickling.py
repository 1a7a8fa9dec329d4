"""What is read of files that torch has written and what is refused, by mmengine too once mmebm is imported."""

import argparse
import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmebm.unpickling import unpickle

STATE = {'weight': torch.ones(1, 2), 'bias': torch.ones(1)}


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'epoch_1.pth'


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint that makes a file when it is unpickled, and the file."""
    ran = tmp_path / 'ran'
    torch.save(dict(state_dict=STATE, meta=dict(x=Call(os.system, f'touch {ran}'))), tmp_path / 'hostile.pth')
    yield tmp_path / 'hostile.pth'
    assert not ran.exists()


def test_what_mmengine_saves_is_read(path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    state = dict(state_dict=STATE, message_hub=dict(log_scalars=dict(loss=history)), classes=np.array(['a', 'b']))
    torch.save(state | dict(meta=ConfigDict(a=dict(b=1)), lr=np.float64(0.5), args=argparse.Namespace(x=1)), path)
    read = unpickle(path)
    found = read['message_hub']['log_scalars']['loss']
    assert type(found) is HistoryBuffer and found.mean() == 1.5 and found.data[0].tolist() == [1, 2]
    assert read['meta'] == dict(a=dict(b=1)) and read['lr'] == 0.5 and read['classes'].tolist() == ['a', 'b']
    assert not hasattr(read['args'], 'x')


def test_a_history_brings_no_functions(path, monkeypatch):
    monkeypatch.setitem(HistoryBuffer._statistics_methods, 'mean', OrderedDict)  # what is pickled
    torch.save(dict(state_dict=STATE, history=HistoryBuffer([1.0, 3.0], [1, 1])), path)
    monkeypatch.setitem(HistoryBuffer._statistics_methods, 'mean', HistoryBuffer.mean)
    assert unpickle(path)['history'].statistics('mean') == 2


def test_mmengine_refuses_too_and_says_what(hostile):
    message = r'hostile\.pth is refused: it pickles posix\.system, and unpickling.*weights_only=False\) and save'
    with pytest.raises(ValueError, match=message):
        load_checkpoint(nn.Linear(2, 1), str(hostile))
    with pytest.raises(ValueError, match=message):
        CheckpointLoader.load_checkpoint(str(hostile))


def test_a_downloaded_file_is_refused_too(hostile, tmp_path, monkeypatch):
    def download(url, target, progress):
        Path(target).write_bytes(hostile.read_bytes())

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr('torch.hub.download_url_to_file', download)
    with pytest.raises(ValueError, match=r'hub/checkpoints/a\.pth is refused: it pickles posix\.system'):
        CheckpointLoader.load_checkpoint('https://host.invalid/a.pth?token=1')


def test_a_config_in_a_checkpoint_is_not_executed_when_it_is_resumed(path, tmp_path):
    program = f'open({str(tmp_path / "ran")!r}, "w")'
    torch.save(dict(state_dict=STATE, meta=dict(config=program, epoch=1)), path)
    assert CheckpointLoader.load_checkpoint(str(path))['meta'] == dict(epoch=1)


def test_all_names_that_are_refused_are_listed(path):
    torch.save(dict(a=Call(os.system, 'true'), b=Call(os.getcwd), c=Call(eval, '1')), path)
    with pytest.raises(ValueError, match=r'it pickles posix\.system, \w+\.eval, posix\.getcwd, and unpickling'):
        unpickle(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_read_or_refused(path, data):
    torch.save(dict(state_dict={'w': torch.arange(20.0)}, meta=dict(cfg='a = 1'), n=np.float64(1)), path)
    content = bytearray(path.read_bytes())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        unpickle(path)
    except ValueError as error:
        assert 'epoch_1.pth is ' in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pickles_in_sound_archives_are_read_or_refused(path, data):
    torch.save(dict(state_dict={'w': torch.arange(4.0)}, n=np.float64(1), h=HistoryBuffer([1.0], [1])), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in parts if name.endswith('data.pkl'))
    content = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with zipfile.ZipFile(path, 'w') as archive:
        for key, part in (parts | {name: bytes(content)}).items():
            archive.writestr(key, part)
    try:
        unpickle(path)
    except ValueError as error:
        assert 'epoch_1.pth is ' in str(error)
