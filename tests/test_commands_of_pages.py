"""Every command that README and documentation show is executed, at reduced size, or said why it is not."""

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from fake_slurm import put_fakes
from page_commands import PAGES, ROOT, code_blocks, commands_of, tool_of, words_of

from mmebm.experiments import held_out
from mmebm.launch.scripts import load_script

# What makes a training short, and those of ViTs and of a ConvNeXt small.
SHORT = 'model.training_step.compile=False train_dataloader.num_workers=0 train_dataloader.batch_size=8 '
SHORT += 'train_cfg.max_epochs=1 optim_wrapper.accumulative_counts=1 '
ARCH = 'model.backbone.arch._delete_=True model.backbone.arch.embed_dims=16 model.backbone.arch.num_layers=1 '
ARCH += 'model.backbone.arch.num_heads=2 model.backbone.arch.feedforward_channels=32 '
VIT = f'{ARCH}model.head.in_channels=16 test_dataloader.num_workers=0 '
TOKENIZER = 'train_dataloader.num_workers=0 train_dataloader.batch_size=8 train_cfg.max_epochs=1 model.width=8 '
CIM = 'train_dataloader.dataset.size=16 val_dataloader.dataset.size=16 train_cfg.max_epochs=1 '
CIM += 'custom_hooks.4.bank.dataset.size=24 custom_hooks.4.queries.dataset.size=8 model.tokenizer.checked=False '
CIM += 'model.tokenizer.model.init_cfg.checkpoint=work_dirs/vqvae_shapes/epoch_1.pth '
CIM += 'model.tokenizer.model.num_embed=32 model.tokenizer.model.width=8 model.generator.vocabulary=32 '
TASKS = 'linear.train_cfg.max_epochs=1 linear.train_cfg.val_interval=1 linear.param_scheduler=None '
TASKS += 'linear.train_dataloader.batch_size=8 linear.train_dataloader.num_workers=0 '
COMPARE = ' '.join(f'{one}.train_dataloader.batch_size=8 {one}.train_dataloader.num_workers=0' for one in ('mae', 'finetune'))
COMPARE += ' finetune.val_dataloader.num_workers=0 finetune.train_cfg.max_epochs=1 '
COMPARE += 'finetune.train_cfg.val_interval=1 finetune.param_scheduler=None '

# What stands for a word of the user's.
WORDS = dict(FOLDER='images', LABELLED='images', HELD_OUT='images/val', SHARDS='shards', CONFIG='ebm_vit-b_in1k', N='8',
             KIND='h200', CHECKPOINT='RUN/epoch_1.pth', WORK_DIR='RUN', CAPTURE='none.pth')  # fmt: skip

PRETRAIN = 'pretrain FOLDER --backbone vit-tiny --epochs 100 --out RUN'
TRAIN = 'train configs/ebm_vit-b_in1k.py'
TOKENIZE = 'train configs/tokenizers/vqvae_shapes.py'
RESPIX = 'train configs/cim-respix_vit-t_shapes.py'
IMPORT = 'import_weights mae_pretrain_vit_base.pth --from mae --config ebm_vit-b_in1k --out checkpoints/mae.pth'
CHOOSE = 'compare --data FOLDER --select --learning-rates 1e-3 2e-3 4e-3 --work-dir work_dirs/chosen'


class Here(NamedTuple):
    """How a command is executed in the prepared folder."""

    leaves: str  # files that are there afterwards, or words that are printed
    more: str = ''  # words behind it; options follow its own
    after: tuple = (PRETRAIN,)  # commands whose files it reads
    instead: dict = {}  # of its words, besides ``WORDS``


# The tools' commands, by module and arguments.
EXECUTED = {
    PRETRAIN: Here('RUN/report.html RUN/backbone_timm/model.safetensors RUN/epoch_1.pth',
                   '--epochs 1 --cfg-options train_dataloader.num_workers=0', ()),
    'train ebm_vit-t_folder --work-dir RUN --cfg-options data_root=FOLDER train_cfg.max_epochs=100': Here(
        'run/epoch_1.pth', SHORT + VIT, (), dict(RUN='run')),
    'train ebm_vit-b_in1k': Here('run_d/epoch_1.pth', f'--work-dir run_d --cfg-options {SHORT}{VIT}', ()),
    TRAIN: Here('work_dirs/ebm_vit-b_in1k/epoch_1.pth', f'--cfg-options {SHORT}{VIT}', ()),
    f'{TRAIN} --cfg-options data_root=FOLDER': Here('run_b/epoch_1.pth', f'{SHORT}{VIT} --work-dir run_b', ()),
    f'{TRAIN} --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint='
    'checkpoints/mae.pth model.backbone.init_cfg.prefix=backbone.': Here(
        'run_c/epoch_1.pth', f'{SHORT}{VIT} --work-dir run_c', (IMPORT,)),
    IMPORT: Here('checkpoints/mae.pth', '', (), {'ebm_vit-b_in1k': 'small_vit.py'}),
    'test configs/ebm_vit-b_in1k.py CHECKPOINT --cfg-options test_data_root=FOLDER': Here(
        'psnr_restored_db', f'{VIT} test_dataloader.batch_size=8', (TRAIN,),
        dict(CHECKPOINT='work_dirs/ebm_vit-b_in1k/epoch_1.pth', FOLDER='images/val')),
    'report WORK_DIR': Here('RUN/report.html'),
    'report RUN': Here('RUN/report.html'),
    'report RUN_A RUN_B RUN_C --out compared.html': Here(
        'compared.html', '', (PRETRAIN, TRAIN), dict(RUN_A='RUN', RUN_B='work_dirs/ebm_vit-b_in1k', RUN_C='copied_run')),
    'app CHECKPOINT': Here('http://127.0.0.1:'),
    'app CHECKPOINT --images FOLDER': Here('http://127.0.0.1:'),
    'app RUN/epoch_100.pth --images FOLDER': Here('http://127.0.0.1:', '', (PRETRAIN,), {'RUN/epoch_100.pth': 'RUN/epoch_1.pth'}),
    'restore photo.jpg --checkpoint CHECKPOINT --out restored.png': Here('restored.png'),
    'restore photo.jpg --checkpoint CHECKPOINT --corruption denoise --steps 10 --out restored.webp': Here('restored.webp'),
    'energy FOLDER --checkpoint CHECKPOINT --out energies.csv': Here('energies.csv energies.csv.json'),
    'embed FOLDER --checkpoint CHECKPOINT --out features.npy': Here('features.npy features.txt'),
    'export CHECKPOINT --to timm': Here('RUN/epoch_1_timm/model.safetensors'),
    'export RUN/epoch_100.pth --to timm': Here('exported/load.py', '--out exported', (PRETRAIN,), {'RUN/epoch_100.pth': 'RUN/epoch_1.pth'}),
    'export work_dirs/ebm_vit-b_in1k/epoch_100.pth --to timm': Here(
        'work_dirs/ebm_vit-b_in1k/epoch_1_timm/load.py', '', (TRAIN,),
        {'work_dirs/ebm_vit-b_in1k/epoch_100.pth': 'work_dirs/ebm_vit-b_in1k/epoch_1.pth'}),
    'export CHECKPOINT --to hf --out FOLDER --image-size 384': Here(
        'exported_hf/preprocessor_config.json', '', (PRETRAIN,), {'FOLDER': 'exported_hf', '384': '96'}),
    'evaluate CHECKPOINT --data FOLDER': Here('work_dirs/evaluate/results.md', '--tasks knn'),
    'evaluate RUN/epoch_100.pth --data LABELLED': Here(
        'evaluated/results.md', '--tasks knn --work-dir evaluated', (PRETRAIN,), {'RUN/epoch_100.pth': 'RUN/epoch_1.pth'}),
    'evaluate ours=A.pth mae=B.pth --tasks linear finetune': Here(
        'evaluated_b/results.md', f'--tasks linear --data images --work-dir evaluated_b --cfg-options {TASKS}', (PRETRAIN,),
        {'ours=A.pth': 'ours=RUN/epoch_1.pth', 'mae=B.pth': 'mae=RUN/epoch_1.pth'}),
    'plan configs/ebm_vit-b_in1k.py --gpus 8 --gpu h200': Here('images per second', '', ()),
    'plan configs/ebm_vit-b_in1k.py --gpus 1 --gpu h200': Here('learning rate', '', ()),
    'plan CONFIG --gpus N --gpu KIND': Here('learning rate', '', ()),
    'browse_corruptions ebm_vit-t_shapes --split test --out corruptions.png': Here('corruptions.png', '--images 2', ()),
    'browse_corruptions ebm-mix_vit-b_in1k --cfg-options data_root=FOLDER': Here('mix.png', '--images 5 --out mix.png', ()),
    'make_shapes data/shapes_coco --layout coco --image-size 64 --train 1000 --val 1000': Here(
        'data/shapes_coco/train2017', '--train 4 --val 2', ()),
    TOKENIZE: Here('work_dirs/vqvae_shapes/epoch_1.pth',
                   f'--cfg-options {TOKENIZER} train_dataloader.dataset.size=16 model.num_embed=32', ()),
    RESPIX: Here('work_dirs/cim-respix_vit-t_shapes/epoch_1.pth', f'--cfg-options {CIM}', (TOKENIZE,)),
    RESPIX.replace('respix', 'revdet'): Here('work_dirs/cim-revdet_vit-t_shapes/epoch_1.pth', f'--cfg-options {CIM}', (TOKENIZE,)),
    'train configs/tokenizers/vqvae_in1k.py --cfg-options data_root=FOLDER': Here(
        'work_dirs/vqvae_in1k/epoch_1.pth', f'{TOKENIZER} model.num_embed=32', ()),
    'train configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER': Here(
        'work_dirs/tokenizer_32px/epoch_1.pth', f'{TOKENIZER} model.num_embed=32', ()),
    'make_corrupted cim-respix_vit-b_in1k CHECKPOINT data/replaced --data FOLDER': Here(
        'data/replaced/clean data/replaced/corrupted', '', (RESPIX,),
        {'cim-respix_vit-b_in1k': 'small_cim.py', 'CHECKPOINT': 'work_dirs/cim-respix_vit-t_shapes/epoch_1.pth'}),
    'pack FOLDER --out SHARDS': Here('shards/000000.tar', '', ()),
    'pack data/imagenet22k --out data/shards': Here('data/shards', '', (), {'data/imagenet22k': 'images'}),
    'demo': Here('work_dirs/demo/report.html work_dirs/demo/summary.json', '--config small_demo.py', ()),
    'demo --seed 1 --work-dir work_dirs/demo1': Here('work_dirs/demo1/restorations.png', '--config small_demo.py', ()),
    'compare --data FOLDER --methods ebm-patches mae random --budget epochs=16': Here(
        'work_dirs/compare/compare.md', f'--methods mae random --budget epochs=1 --seeds 1 --points 1 --cfg-options {COMPARE}', ()),
    'compare --data shapes --methods ebm mae random --budget seconds=600 --seeds 1': Here(
        'compare_quick/compare.md', '--methods random --quick --budget epochs=1 --images 40 --finetune-points 0 --work-dir compare_quick', ()),
    CHOOSE: Here('work_dirs/chosen/selection.md', f'--methods mae --learning-rates 1e-3 --budget epochs=1 --seeds 1 --points 1 --finetune-points 0 --cfg-options {COMPARE}', ()),
    'compare --data FOLDER --final HELD_OUT --selection work_dirs/chosen --work-dir work_dirs/final': Here(
        'work_dirs/final/paired.json', f'--methods mae random --budget epochs=1 --seeds 1 --points 1 --finetune-points 0 --cfg-options {COMPARE}', (CHOOSE,)),
}  # fmt: skip

# Commands that are executed by a test elsewhere, as its function says: they need more than a folder.
ELSEWHERE = {
    'demo --method cim': 'tests/test_experiments/test_cim_demo.py::test_leaves_picture_summary_and_checkpoints',
    'import_dalle encoder.pkl decoder.pkl --out checkpoints/dalle.safetensors': (
        'tests/test_interchange/test_dalle.py::test_pickles_become_a_tokenizer'
    ),
    'replay work_dirs/ebm_vit-b_in1k/captures/iter_1200_rank_0.pth': (
        'tests/test_engine/test_faulty_steps.py::test_a_capture_is_run_again'
    ),
    'replay CAPTURE': 'tests/test_engine/test_faulty_steps.py::test_a_capture_is_run_again',
    'test configs/examples/ood_ebm-convnext-t_in1k.py CHECKPOINT --cfg-options ood_data_root=FOLDER': (
        'tests/test_downstream/test_examples.py::test_energy_of_a_classifiers_images_is_that_of_the_pretraining'
    ),
}

# Commands that are parsed alone (test_documentation.py), by their beginnings, and why.
NOT_HERE = {
    'make ': 'fills .venv from the network; what the targets run is executed here and by tests/test_packaging.py',
    'pip install ': 'downloads',
    'mim train ': 'needs another package, and mmebm installed',
    'python -m benchmarks.': 'measures for minutes to hours; tests/test_benchmarks/ has parts',
    'python tools/evaluate.py CHECKPOINT --tasks knn linear finetune seg det --gpus 8': 'needs 8 GPUs and three data sets',
    'python tools/compare.py --data FOLDER --images 5000 ': 'hours: the published runs',
    'python tools/compare.py --data FOLDER --methods ebm-patches mae random --budget epochs=16 --': 'hours, likewise',
    'python tools/compare.py --data FOLDER --methods ebm-patches mae random --budget cpu-seconds': 'hours, likewise',
}
FOUND = sorted({command for page in PAGES for command in commands_of(page) if len(words_of(command)) > 1})
SCRIPTS = [command for command in FOUND if words_of(command)[0].endswith('.sh')]
DONE: set[str] = set()


def name_of(command):
    """Module and arguments of one of our tools, or the command as it is."""
    tool = tool_of(command)
    return f'{tool[0]} {" ".join(tool[1])}'.strip() if tool else command


def test_every_command_is_executed_or_said_why_not():
    known = EXECUTED.keys() | ELSEWHERE.keys()
    named = [*(name_of(command) for command in FOUND), 'demo']  # which is shown without arguments
    missing = [
        command for command in FOUND
        if name_of(command) not in known and command not in SCRIPTS and not command.startswith((*NOT_HERE,))
        and not re.fullmatch(r'python tools/\w+\.py', command)
    ]  # fmt: skip
    assert not missing, f'nothing executes {missing}: put them into EXECUTED'
    assert not known - set(named), 'these are in no page any more'
    assert all(any(command.startswith(start) for command in FOUND) for start in NOT_HERE)


@pytest.mark.parametrize('test', sorted(set(ELSEWHERE.values())))
def test_tests_elsewhere_are_there(test):
    file, _, function = test.partition('::')
    assert f'def {function}(' in (ROOT / file).read_text()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder as the pages suppose it: the repository's files, some images in classes, a photo, weights of others."""
    folder = tmp_path_factory.mktemp('pages')
    for name in ('tools', 'configs', 'benchmarks'):
        (folder / name).symlink_to(ROOT / name)
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
    (folder / 'small_vit.py').write_text(
        f"_base_ = '{ROOT}/configs/ebm_vit-b_in1k.py'\n"
        'arch = dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)\n'
        'model = dict(backbone=dict(arch=arch), head=dict(in_channels=16))\n'
    )
    (folder / 'small_cim.py').write_text(
        f"_base_ = '{ROOT}/configs/cim-respix_vit-t_shapes.py'\n"
        'model = dict(tokenizer=dict(model=dict(num_embed=32, width=8)), generator=dict(vocabulary=32))\n'
        "resize = dict(type='Resize', scale=(32, 32))\n"
        "pipeline = [dict(type='LoadImageFromFile', _scope_='mmebm'), resize, *_base_.test_dataloader.dataset.pipeline]\n"
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    (folder / 'small_demo.py').write_text(
        f"_base_ = '{ROOT}/configs/ebm_vit-t_shapes.py'\n"
        'sets = [_base_.train_dataloader.dataset, *_base_.val_dataloader.dataset.datasets]\n'
        'sets += [*_base_.test_dataloader.dataset.datasets]\n'
        "for one in [*sets, *[_base_.custom_hooks[-1][name].dataset for name in ('bank', 'queries')]]:\n"
        '    one.size = 24\n'
        'del one, sets\n'
        'train_cfg = dict(max_epochs=1)\n'
        'param_scheduler = None\n'
    )
    timm = pytest.importorskip('timm')
    theirs = timm.models.vision_transformer.VisionTransformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, num_classes=0)
    torch.save(dict(model=theirs.state_dict()), folder / 'mae_pretrain_vit_base.pth')
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """In that folder: trainings of other commands are done in this process, the page of the app is closed at once."""
    monkeypatch.chdir(folder)
    gradio = pytest.importorskip('gradio')
    monkeypatch.setattr(gradio.Blocks, 'block_thread', lambda page: page.close())
    monkeypatch.setattr(held_out, 'stamp', lambda: dict(commit='abc1234'))
    run = subprocess.run

    def run_here(command, **options):
        if command[1:2] != ['-m'] or not command[2].startswith('mmebm.commands.'):
            return run(command, **options)
        importlib.import_module(command[2]).main(command[3:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, 'run', run_here)


def execute(command, monkeypatch):
    """Run a command by its tool, after those that it needs, each once."""
    how = EXECUTED[command]
    if command in DONE:
        return
    for earlier in how.after:
        execute(earlier, monkeypatch)
    if 'copied_run' in how.instead.values():
        shutil.copytree('RUN', 'copied_run')
    words = WORDS | how.instead
    words |= {f'data_root={key}': f'data_root={value}' for key, value in words.items()}
    words |= {f'test_{key}': f'test_{value}' for key, value in words.items() if key.startswith('data_root=')}
    tool, *argv = [words.get(word, word) for word in shlex.split(command)]
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
