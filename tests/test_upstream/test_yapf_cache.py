"""yapf's cache while another process writes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / 'mmebm' / 'upstream' / 'yapf_cache.py'
WHOLE = "import yapf.yapflib.yapf_api; print(yapf.yapflib.yapf_api.FormatCode('a=1')[0].strip())"
READ = f"""
import runpy, shutil, threading
import_yapf = runpy.run_path({str(MODULE)!r})['import_yapf']
if {{attempts}} > 1:
    threading.Timer(1.0, lambda: [shutil.copy(file + '.whole', file) for file in {{files}}]).start()
import_yapf(attempts={{attempts}}, seconds=0.5)
{WHOLE}
"""


@pytest.mark.parametrize(
    ('attempts', 'expected'), [(20, 'a = 1'), (1, 'yapf cannot read its cache; remove its folder')]
)
def test_another_process_writes_it(tmp_path, attempts, expected):
    environment = os.environ | dict(XDG_CACHE_HOME=str(tmp_path))

    def run(code):
        done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    assert run(WHOLE) == 'a = 1\n'
    files = [str(path) for path in tmp_path.rglob('*.pickle')]
    assert len(files) == 2
    for file in files:
        Path(f'{file}.whole').write_bytes(Path(file).read_bytes())
        Path(file).write_bytes(b'')
    assert expected in run(READ.format(files=files, attempts=attempts))
