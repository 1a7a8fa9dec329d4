import subprocess
import sys

import pytest

from mmebm.commands import compare, evaluate
from mmebm.commands.make_shapes import main as make_shapes
from mmebm.output_files import check_new, locked

HOLDER = """
import sys
from pathlib import Path
from mmebm.output_files import locked
with locked(Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
"""


def test_new_and_empty_folders_alone_are_new(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    check_new(tmp_path / 'empty')
    check_new(tmp_path / 'none')
    for used, flag, named in (('file', '', ''), ('', '--out', '--out ')):
        with pytest.raises(FileExistsError, match=f'^{named}{tmp_path / used} exists and is not an empty folder'):
            check_new(tmp_path / used, flag)


def test_a_folder_is_free_again_when_its_process_is_killed(tmp_path):
    folder = tmp_path / 'runs'
    command = [sys.executable, '-c', HOLDER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == 'held\n'
        with pytest.raises(FileExistsError, match=f'{folder}: another process is writing there'), locked(folder):
            pass
        holder.kill()
        holder.wait()
    with locked(folder):
        pass


def test_compare_and_evaluate_refuse_a_folder_in_use(tmp_path, capsys, monkeypatch):
    folder = tmp_path / 'runs'
    make_shapes([str(tmp_path / 'data'), '--layout', 'imagenet', '--train', '20', '--val', '10', '--image-size', '32'])
    monkeypatch.setattr(compare, 'print_estimate', lambda *args: None)
    monkeypatch.setattr(compare, 'estimates', lambda *args: [])
    monkeypatch.setattr(evaluate.Evaluation, 'plan_runs', lambda *args: [])
    options = [f'finetune.{split}_dataloader.batch_size=2' for split in ('train', 'val')]
    of_random = ['--data', str(tmp_path / 'data'), '--methods', 'random', '--seeds', '1', '--cfg-options', *options]
    with locked(folder):
        for main, argv in ((compare.main, of_random), (evaluate.main, ['pretrained.pth'])):
            with pytest.raises(SystemExit) as exit:
                main([*argv, '--work-dir', str(folder)])
            assert exit.value.code == 2
            assert f'{folder}: another process is writing there' in ' '.join(capsys.readouterr().err.split())
