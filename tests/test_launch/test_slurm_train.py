"""tools/slurm_train.sh with a fake Slurm: what is submitted, and what comes back into the queue."""

import os
import subprocess
from pathlib import Path

import pytest
from fake_slurm import put_fakes

SCRIPT = Path(__file__).parents[2] / 'tools/slurm_train.sh'


@pytest.fixture
def submit(tmp_path):
    """Submits with a plan of what each start of the training does; returns the calls."""

    def run(*plan):
        log = tmp_path / 'log'
        (tmp_path / 'plan').write_text('\n'.join(plan) + '\n')
        environment = os.environ | dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', LOG=str(log), GPUS='2')
        command = ['bash', str(SCRIPT), 'gpu', 'mine', 'a.py', 'run', '--cfg-options', 'a=1']
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        return log.read_text().splitlines()

    put_fakes(tmp_path)
    return run


def test_what_is_submitted(submit):
    sbatch, *_ = submit('exit 0')
    for option in ('--signal=USR1@120', '--requeue', '--open-mode=append', '--output=run/slurm.out', '--ntasks=2'):
        assert f' {option} ' in sbatch


def test_a_finished_run_stays_out_of_the_queue(submit):
    _, python = submit('exit 0')
    end = '/train.py a.py --work-dir=run --launcher=slurm --resume --cfg-options a=1'
    assert python.startswith('python -u ') and python.endswith(end)


@pytest.mark.parametrize('stop', ['exit 75', 'touch run/requeue; exit 137'])
def test_a_stopped_run_comes_back_in_the_same_folder(submit, stop):
    _, first, requeue, second = submit(f'if [[ ! -e done ]]; then touch done; {stop}; fi')
    assert requeue == 'scontrol requeue 7'
    assert first == second


def test_a_failed_run_stays_out_of_the_queue(submit):
    assert not any('scontrol' in call for call in submit('exit 1'))
