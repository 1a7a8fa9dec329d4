import pytest
import torch
from mmengine.config import Config

from mmebm.launch.start import check_readable, choose_start, find_latest


@pytest.fixture
def work_dir(tmp_path):
    """A copy of a folder: the last checkpoint is named by its path in the original."""
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        torch.save(dict(state_dict={'a': torch.ones(2, 3)}), tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text('/original/epoch_2.pth')
    return tmp_path


def training(**meta):
    """What a training leaves, as far as resuming looks for it."""
    return dict(state_dict={'a': torch.ones(200, 30)}, meta=meta, message_hub={}, optimizer={})


def start(work_dir, load_from=None, **options):
    cfg = Config(dict(work_dir=str(work_dir), resume=True, load_from=None, **options))
    choose_start(cfg, load_from)
    return cfg.resume, cfg.load_from


def test_a_copied_folder_resumes_from_its_own_checkpoint(work_dir):
    assert start(work_dir) == (True, str(work_dir / 'epoch_2.pth'))
    assert start(work_dir, load_from='a.pth') == (True, str(work_dir / 'epoch_2.pth'))


def test_an_empty_folder_starts_as_without_resuming(tmp_path):
    assert start(tmp_path / 'new') == (True, None)  # mmengine finds nothing
    assert start(tmp_path / 'new', load_from='a.pth') == (False, 'a.pth')


def test_checkpoints_of_another_place(tmp_path):
    (tmp_path / 'big/run').mkdir(parents=True)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'big/run/epoch_3.pth').write_bytes(b'in the old format')
    (tmp_path / 'run/last_checkpoint').write_text('elsewhere/run/epoch_3.pth\n')
    assert find_latest(tmp_path / 'run', dict(out_dir=str(tmp_path / 'big'))) == tmp_path / 'big/run/epoch_3.pth'


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    if how == 'missing':
        path.unlink()
    else:
        changed = bytes([content[middle] ^ 1])
        path.write_bytes(
            dict(empty=b'', truncated=content[:middle], flipped=content[:middle] + changed + content[middle + 1 :])[how]
        )


@pytest.mark.parametrize(
    ('how', 'reason'),
    [('missing', 'not there'), ('empty', 'empty'), ('truncated', 'truncated or damaged'), ('flipped', 'checksum')],
)
def test_the_newest_whole_checkpoint_is_taken_and_the_others_are_named(work_dir, warnings_logged, how, reason):
    """By the time of saving, then by iterations; neither of another's training nor of the best score."""
    torch.save(training(iter=8, time='20260102_000000'), work_dir / 'iter_8.pth')
    torch.save(training(iter=4, time='20260101_000000'), work_dir / 'epoch_1.pth')
    torch.save(training(iter=9, time='2027'), work_dir / 'best_a.pth')
    torch.save(training(iter=9, time='20260103_000000'), work_dir / 'epoch_2.pth')
    torch.save({'a': torch.ones(2)}, work_dir / 'weights.pth')
    damage(work_dir / 'epoch_2.pth', how)
    assert start(work_dir) == (True, str(work_dir / 'iter_8.pth'))
    (said,) = warnings_logged
    assert 'iter_8.pth, the newest whole checkpoint; passed over: epoch_2.pth' in said and reason in said


def test_without_a_name_the_newest_is_taken(work_dir):
    (work_dir / 'last_checkpoint').write_text('')
    torch.save(training(iter=4), work_dir / 'epoch_1.pth')
    assert start(work_dir) == (True, str(work_dir / 'epoch_1.pth'))


def test_checkpoints_of_which_none_can_be_resumed_from_are_not_overwritten(work_dir):
    (work_dir / 'last_checkpoint').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'no whole checkpoint.*no file "last_checkpoint".*--resume FILE.*: epoch_1\.pth, epoch_2',
    ):
        start(work_dir)


@pytest.mark.parametrize('content', [b'', b'text', 0.5])
def test_a_truncated_file_is_refused(work_dir, content):
    path = work_dir / 'epoch_2.pth'
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[: int(content * path.stat().st_size)])
    with pytest.raises(ValueError, match=r'epoch_2\.pth is truncated or no checkpoint \(\w+.*beside it: epoch_1\.pth$'):
        check_readable(str(path))


def test_what_can_be_read(work_dir):
    check_readable(str(work_dir / 'epoch_2.pth'))
    check_readable('https://example.com/epoch_2.pth')
    torch.save(dict(state_dict={}), work_dir / 'old.pth', _use_new_zipfile_serialization=False)
    check_readable(str(work_dir / 'old.pth'))
    with pytest.raises(FileNotFoundError, match=r'No checkpoint ".*absent\.pth" to resume from'):
        check_readable(str(work_dir / 'absent.pth'))


def test_checkpoints_without_optimiser_are_passed_over(work_dir):
    """As those that ``published_keys`` or ``save_optimizer=False`` leave."""
    (work_dir / 'last_checkpoint').unlink()
    torch.save(training(iter=4, time='20260101_000000'), work_dir / 'epoch_1.pth')
    slim = training(iter=8, time='20260102_000000')
    del slim['optimizer']
    torch.save(slim, work_dir / 'epoch_2.pth')
    assert find_latest(work_dir, {}) == work_dir / 'epoch_1.pth'
