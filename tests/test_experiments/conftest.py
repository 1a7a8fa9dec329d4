import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmebm.commands import train


class Done:
    """A process that has ended."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return 0


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The folders below ``tmp_path`` of the trainings that a comparison starts, which are done in this process."""
    folders = []

    def run_here(command, **kwargs):
        if command[1:3] != ['-m', 'mmebm.commands.train']:
            return subprocess.Popen(command, **kwargs)
        path = Path(command[3]).relative_to(tmp_path)
        folders.append(str(path.parent if path.name == 'config.py' else path.with_suffix('')))
        train.main(command[3:])
        return Done()

    here = SimpleNamespace(Popen=run_here, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr('mmebm.experiments.processes.subprocess', here)
    return folders
