import errno

import pytest

from mmebm.engine.resuming.stop_signals import REQUEUE, STOP
from mmebm.launch import interruption
from mmebm.launch.interruption import MARK, clear_mark, told_why


@pytest.fixture
def work_dir(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('run/epoch_2.pth')
    return tmp_path


def test_a_full_disk_is_told_with_the_last_checkpoint(work_dir):
    message = (
        r'No space left on device: a\.json\. Make room; run/epoch_2\.pth is the last checkpoint; --resume continues'
    )
    with pytest.raises(OSError, match=message), told_why([work_dir]):
        raise OSError(errno.ENOSPC, 'No space left on device', 'a.json')
    with pytest.raises(FileNotFoundError, match=r'^\[Errno 2\] not there$'), told_why([work_dir]):
        raise FileNotFoundError(2, 'not there')


def test_a_stopped_run_leaves_a_mark(work_dir):
    with pytest.raises(SystemExit), told_why([work_dir]):
        raise SystemExit(2)  # of the parser of arguments
    assert not (work_dir / MARK).exists()
    with pytest.raises(SystemExit), told_why([work_dir]):
        raise SystemExit(REQUEUE)
    assert (work_dir / MARK).is_file()
    clear_mark(work_dir)
    clear_mark(work_dir)
    assert not (work_dir / MARK).exists()


def test_a_process_that_fails_since_the_others_obeyed_the_signal_asks_to_be_requeued(work_dir, monkeypatch, capsys):
    monkeypatch.setattr(STOP, 'received', 'SIGTERM')
    with pytest.raises(SystemExit) as end, told_why([work_dir]):
        raise RuntimeError('Connection closed by peer')
    assert end.value.code == REQUEUE and (work_dir / MARK).read_text() == 'SIGTERM\n'
    assert 'Connection closed by peer' in capsys.readouterr().err


def test_a_process_that_lost_another_says_so(work_dir, monkeypatch, capsys):
    monkeypatch.setattr(interruption, 'get_world_size', lambda: 2)
    with pytest.raises(RuntimeError), told_why([work_dir]):
        raise RuntimeError('[gloo] Connection closed by peer [127.0.0.1]:1')
    assert capsys.readouterr().err.startswith('Process 0 of 2 lost another one, which ended before')
    with pytest.raises(RuntimeError), told_why([work_dir]):
        raise RuntimeError('another fault')
    assert capsys.readouterr().err == ''
