"""Every command in README and documentation is one that works as typed: parsers, configs and options know its words."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from page_commands import ROOT, commands_of, words_of

from mmebm.config_files import find_config
from mmebm.launch.options import merge_options
from mmebm.launch.scripts import load_script

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *(ROOT / 'benchmarks').glob('*.md')])
# What stands for a word of the user's.
PLACEHOLDERS = {'CONFIG': 'ebm_vit-b_in1k', 'N': '1', 'KIND': 'h200', 'benchmarks.NAME': 'benchmarks.step_time'}
PLACEHOLDERS |= dict.fromkeys(('bands.py', 'mine.py', 'scratched.py'), 'ebm_vit-t_folder')  # configs of the pages
COMMANDS = sorted({(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands_of(page)})


def test_commands_are_found():
    tools = {command.split()[1] for _, command in COMMANDS if command.startswith('python tools/')}
    assert tools == {f'tools/{path.name}' for path in (ROOT / 'tools').glob('*.py')}
    assert {'make demo', 'make test', 'make test-fast', 'make bench'} <= {command for _, command in COMMANDS}


@pytest.mark.parametrize(('page', 'command'), COMMANDS)
def test_command(page, command, monkeypatch):
    program, *words = [PLACEHOLDERS.get(word, word) for word in words_of(command)]
    if program == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE)
        assert words[0] in targets
    elif program == 'pip':
        check_extras(words)
    elif program == 'mim':
        assert words[:2] == ['train', 'mmebm'] and find_config(words[2]).is_file()
    elif program.endswith('.sh'):
        assert (ROOT / program).is_file()
        (config,) = (word for word in words if word.startswith('configs/'))
        assert (ROOT / config).is_file()
    elif program.startswith('mmebm-'):
        assert f"'{program} = mmebm.commands." in (ROOT / 'setup.py').read_text()
        if words:
            check_tool(program.removeprefix('mmebm-'), words, monkeypatch)
    elif words[0] == '-m':
        module = importlib.import_module(words[1])
        assert callable(module.main)
        flags = {word for word in words if word.startswith('--')}
        assert flags - set(re.findall(r"'(--[\w-]+)'", Path(module.__file__).read_text())) == set()
    else:
        assert (ROOT / words[0]).is_file()
        if words[1:]:  # without, it is only named
            check_tool(Path(words[0]).stem, words[1:], monkeypatch)


def anchors_of(page):
    """Those of a page's headings, as GitHub makes them."""
    titles = re.findall(r'^#+ (.+)$', re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for target, anchor in re.findall(r'\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)', page.read_text()):
        other = (page.parent / target) if target else page
        if not other.exists() or (anchor and anchor not in anchors_of(other)):
            broken.append(f'{target}#{anchor}')
    assert not broken


def check_extras(words):
    extras = {extra for word in words for group in re.findall(r'\[(.*)\]', word) for extra in group.split(',')}
    names = set(re.findall(r"^    '(\w+)': \[", (ROOT / 'setup.py').read_text(), flags=re.MULTILINE))
    assert extras <= names


def check_tool(name, words, monkeypatch):
    """Parse the words as the tool does, and merge its options into its configs."""
    if name not in ('train', 'test'):
        args = importlib.import_module(f'mmebm.commands.{name.replace("-", "_")}').make_parser().parse_args(words)
        options = getattr(args, 'cfg_options', None) or {}
        if name == 'compare':
            for key, value in options.items():
                method, _, option = key.partition('.')
                merge_options(Config.fromfile(find_config(f'{method}_{args.backbone}_32px')), {option: value})
        elif getattr(args, 'config', None):
            merge_options(Config.fromfile(find_config(args.config)), options)
        return
    monkeypatch.setattr(sys, 'argv', ['tool', *words])
    args = load_script(name).parse_args()
    merge_options(Config.fromfile(find_config(args.config)), args.cfg_options or {})
