import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmebm.commands import train


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The folders below ``tmp_path`` of the trainings that a comparison starts, which are done in this process."""
    folders, run = [], subprocess.run

    def run_here(command, **kwargs):
        if command[1:3] != ['-m', 'mmebm.commands.train']:
            return run(command, **kwargs)
        path = Path(command[3]).relative_to(tmp_path)
        folders.append(str(path.parent if path.name == 'config.py' else path.with_suffix('')))
        train.main(command[3:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, 'run', run_here)
    return folders
