"""The commands and the code that README and documentation show, for the tests that parse and run them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
COMMAND = re.compile(r'(python (tools/|-m benchmarks\.)|make |tools/\w+\.sh|mmebm-|mim |pip install |[A-Z_]+=\S+ )')


def commands_of(page: Path) -> list[str]:
    """Commands in code blocks, and those in a line of text."""
    text = re.sub(r' *\\\n *', ' ', page.read_text(encoding='utf-8'))
    lines = [line.strip() for line in text.splitlines() if line.startswith('    ') or COMMAND.match(line)]
    inline = re.findall(r'`([^`\n]+)`', text)
    return [line.partition('  #')[0].strip() for line in [*lines, *inline] if COMMAND.match(line)]


def words_of(command: str) -> list[str]:
    """Program and arguments, without variables of the environment."""
    words = shlex.split(command)
    while words and re.fullmatch(r'[A-Z_]+=\S+', words[0]):
        words.pop(0)
    return words


def tool_of(command: str) -> tuple[str, list[str]] | None:
    """The module of ``mmebm.commands`` that a command runs, by either of its names, and its arguments; None if none."""
    program, *words = words_of(command)
    if program.startswith('mmebm-'):
        found = re.search(rf"'{program} = mmebm\.commands\.(\w+):main'", (ROOT / 'setup.py').read_text())
        return (found[1], words) if found else None
    if program == 'python' and words[0].startswith('tools/'):
        return Path(words[0]).stem, words[1:]
    return None


def code_blocks(page: str) -> list[str]:
    """The Python code of a page, named by its path in the repository."""
    return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(encoding='utf-8'), re.DOTALL)
