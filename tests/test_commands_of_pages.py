"""Every command that README and documentation show is executed, at reduced size, or said why it is not."""

import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from fake_slurm import put_fakes
from page_commands import PAGES, ROOT, code_blocks, commands_of, tool_of, words_of
from page_commands_table import DEMO, ELSEWHERE, EXECUTED, NOT_HERE, WORDS

from mmebm.launch.scripts import load_script

FOUND = sorted({command for page in PAGES for command in commands_of(page) if len(words_of(command)) > 1})
SCRIPTS = [command for command in FOUND if words_of(command)[0].endswith('.sh')]
DONE: set[str] = set()


def name_of(command):
    """Module and arguments of one of our tools, or the command as it is."""
    tool = tool_of(command)
    return f'{tool[0]} {" ".join(tool[1])}'.strip() if tool else command


def test_every_command_is_executed_or_said_why_not():
    known = EXECUTED.keys() | ELSEWHERE.keys()
    named = {name_of(command) for command in FOUND}
    missing = [
        command for command in FOUND
        if name_of(command) not in known and command not in SCRIPTS and not command.startswith((*NOT_HERE,))
        and not re.fullmatch(r'python tools/\w+\.py', command)
    ]  # fmt: skip
    assert not missing, f'nothing executes {missing}: put them into EXECUTED'
    assert not known - named, 'these are in no page any more'
    assert all(any(command.startswith(start) for command in FOUND) for start in NOT_HERE)


@pytest.mark.parametrize('test', sorted(set(ELSEWHERE.values())))
def test_tests_elsewhere_are_there(test):
    file, _, function = test.partition('::')
    assert f'def {function}(' in (ROOT / 'tests' / file).read_text()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder as the pages suppose it: the repository's files, some images in classes, a photo, weights of others."""
    folder = tmp_path_factory.mktemp('pages')
    (folder / 'configs').mkdir()
    for path in [*(ROOT / 'configs').iterdir(), ROOT / 'tools']:
        (folder / path.relative_to(ROOT)).symlink_to(path)
    rng = np.random.default_rng(0)
    for part, number in dict(train=12, val=5).items():
        for channel, name in enumerate(('blue', 'green')):
            (folder / 'images' / part / name).mkdir(parents=True)
            for i in range(number):
                image = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (72, 64))
                image[..., channel] = 255
                cv2.imwrite(str(folder / 'images' / part / name / f'{i}.png'), image)
    cv2.imwrite(str(folder / 'photo.jpg'), image)
    (folder / 'data').mkdir()
    (folder / 'data' / 'imagenet').symlink_to(folder / 'images')
    small = (
        'arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)\n'
        'model = dict(backbone=dict(arch=arch), head=dict(in_channels=16))\n'
    )
    for name in ('ebm_vit-b_in1k.py', 'ebm-mask_vit-b_in1k.py'):
        (folder / 'configs' / name).unlink()
        (folder / 'configs' / name).write_text(f"_base_ = '{ROOT}/configs/{name}'\n{small}")
    pages = {'corruptions': ('scratches', 'scratched'), 'backbones': ('my_backbone', 'mine'), 'channels': ('bands',)}
    for page, names in pages.items():
        for name, text in zip(names, code_blocks(f'docs/{page}.md'), strict=False):
            (folder / f'{name}.py').write_text(text)
    (folder / 'small_scratched.py').write_text(f"_base_ = './scratched.py'\n{small}")
    (folder / 'bands').mkdir()
    for i in range(8):
        image = rng.integers(0, 10000, (72, 72, 13), np.uint16)
        tifffile.imwrite(folder / 'bands' / f'{i}.tif', image, photometric='minisblack', planarconfig='contig')
    (folder / 'small_cim.py').write_text(
        f"_base_ = '{ROOT}/configs/cim-respix_vit-t_shapes.py'\n"
        'model = dict(tokenizer=dict(model=dict(num_embed=32, width=8)), generator=dict(vocabulary=32))\n'
        "resize = dict(type='Resize', scale=(32, 32))\n"
        "load = dict(type='LoadImageFromFile', _scope_='mmebm')\n"
        'pipeline = [load, resize, *_base_.test_dataloader.dataset.pipeline]\n'
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    (folder / 'small_demo.py').write_text(
        f"_base_ = '{ROOT}/configs/ebm_vit-t_shapes.py'\n"
        'sets = [_base_.train_dataloader.dataset, *_base_.val_dataloader.dataset.datasets]\n'
        'sets += [*_base_.test_dataloader.dataset.datasets]\n'
        "for one in [*sets, *[_base_.custom_hooks[-1][name].dataset for name in ('bank', 'queries')]]:\n"
        '    one.size = 22\n'
        'del one, sets\n'
        'train_cfg = dict(max_epochs=1)\n'
        'param_scheduler = None\n'
    )
    timm = pytest.importorskip('timm')
    sizes = dict(embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, num_classes=0)
    theirs = timm.models.vision_transformer.VisionTransformer(**sizes)
    torch.save(dict(model=theirs.state_dict()), folder / 'mae_pretrain_vit_base.pth')
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """In that folder: trainings of other commands are done in this process, the page of the app is closed at once."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    gradio, uvicorn = pytest.importorskip('gradio'), pytest.importorskip('uvicorn')
    monkeypatch.setattr(gradio.Blocks, 'block_thread', lambda page: page.close())
    # It would close the log files of the other commands' trainings, which otherwise are processes of their own.
    monkeypatch.setattr(uvicorn.Config, 'configure_logging', lambda config: None)
    run = subprocess.run

    def run_here(command, **options):
        if command[1:2] != ['-m'] or not command[2].startswith('mmebm.'):
            return run(command, **options)
        with redirect_stdout(options.get('stdout') or sys.stdout), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', command[2:])
            runpy.run_module(command[2], run_name='__main__')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, 'run', run_here)


def typed(word, instead):
    """A word with what stands for the user's replaced, and of the first epoch's checkpoint."""
    for old, new in instead.items():
        word = re.sub(rf'(?<![\w.-]){re.escape(old)}(?![\w.-])', new, word)
    return re.sub(r'epoch_\d+\.pth', 'epoch_1.pth', word)


def execute(command, monkeypatch):
    """Run a command by its tool, after those that it needs, each once."""
    how = EXECUTED[command]
    if command in DONE:
        return
    for earlier in how.after:
        execute(earlier, monkeypatch)
    tool, *argv = (typed(word, WORDS | how.instead) for word in shlex.split(command))
    monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *argv, *how.more.split()])
    runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    DONE.add(command)


@pytest.mark.slow
@pytest.mark.parametrize('command', EXECUTED)
def test_command_runs(command, here, folder, monkeypatch, capsys):
    execute(command, monkeypatch)
    printed = capsys.readouterr().out
    leaves = EXECUTED[command].leaves
    files = [file for file in leaves.split() if (folder / file).exists()]
    assert files == leaves.split() or leaves in printed


@pytest.mark.parametrize('command', SCRIPTS)
def test_script_starts_a_training_that_its_parsers_accept(command, tmp_path, monkeypatch):
    """With Slurm and Python replaced by what writes down how it is called."""
    put_fakes(tmp_path)
    (tmp_path / 'plan').write_text('exit 0\n')
    environment = dict(word.split('=', 1) for word in command.split() if re.fullmatch(r'[A-Z_]+=\S+', word))
    script, *argv = words_of(command)
    subprocess.run(
        ['bash', ROOT / script, *argv],
        cwd=tmp_path, check=True,
        env=os.environ | environment | dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', LOG=str(tmp_path / 'log')),
    )  # fmt: skip
    *_, call = (tmp_path / 'log').read_text().splitlines()
    words = call.split()[2:]  # python -m or -u
    if words[0] == 'torch.distributed.run':
        parser = importlib.import_module('torch.distributed.run').get_args_parser()
        args = parser.parse_args(words[1:])
        assert (args.nproc_per_node, args.nnodes) == ('8', environment.get('NNODES', '1'))
        words = [args.training_script, *args.training_script_args]
    monkeypatch.setattr(sys, 'argv', words)
    args = load_script('train').parse_args()
    assert words[0].endswith('tools/train.py') and (ROOT / args.config).is_file()
    assert args.launcher == ('slurm' if 'slurm' in script else 'pytorch')


@pytest.mark.slow
def test_python_of_the_commands_page_runs(here, folder, monkeypatch):
    execute(DEMO, monkeypatch)
    model, restorer = (typed(block, WORDS) for block in code_blocks('docs/commands.md'))
    names = dict(images=torch.rand(2, 3, 32, 32) * 255)
    exec(model, names)
    assert names['restoration'].images[-1].shape == (2, 3, 32, 32) and len(names['restoration'].energies[0]) == 2
    exec(restorer, names)
    assert names['result'].features.shape == (64, 8, 8)
