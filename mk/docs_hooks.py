"""What the site has beside docs/: the README and its like, figures of the benchmarks, and a table of the models.

MkDocs calls these functions; pages and links stay as they are on the code's host.
"""

import re
from pathlib import Path

import yaml
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'CONTRIBUTING.md', 'CHANGELOG.md': 'CHANGELOG.md',
         'benchmarks/README.md': 'benchmarks/README.md'}  # fmt: skip
NOT_RUN = 'not run'


def on_files(files: Files, config) -> Files:
    """Add the pages and figures that lie elsewhere."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding='utf-8')))
    for figure in sorted((ROOT / 'benchmarks' / 'results').glob('*.png')):
        place = figure.relative_to(ROOT).as_posix()
        files.append(File.generated(config, place, abs_src_path=str(figure)))
    files.append(File.generated(config, 'models.md', content=models()))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Let links lead to where the site has their targets; those to code become text."""
    place = page.file.src_uri
    source = {target: name for name, target in PAGES.items()}.get(place, f'docs/{place}')

    def moved(match: re.Match) -> str:
        text, target, anchor = match[1], match[2], match[3] or ''
        path = Path(source).parent.joinpath(target).as_posix()
        path = Path(*_normal(path)).as_posix()
        there = PAGES.get(path) or path.removeprefix('docs/')
        if files.get_file_from_path(there) is None:
            return text.strip('[]') if not text.startswith('!') else ''
        up = '../' * place.count('/')
        return f'{text}({up}{there}{anchor})'

    markdown = re.sub(r'(!?\[[^\]]*\])\(([^)#:\s]+)(#[^)]*)?\)', moved, markdown)
    return markdown.replace('src="docs/images/', 'src="images/')


def models() -> str:
    """The table of the pretraining configs, from the metafiles."""
    lines = ['# Models', '', 'No weights are published. Each config trains the model of its row.', '']
    lines += ['| config | method | data | result |', '|---|---|---|---|']
    for entry in yaml.safe_load((ROOT / 'configs' / 'metafile.yml').read_text())['Models']:
        metrics = [result.get('Metrics') or {} for result in entry['Results'] or []]
        results = [f'{name} {value}' for values in metrics for name, value in values.items()]
        data = entry['Metadata'].get('Training Data', '-')
        lines.append(f'| `{entry["Config"]}` | {entry["In Collection"]} | {data} | {", ".join(results) or NOT_RUN} |')
    return '\n'.join(lines) + '\n'


def _normal(path: str) -> list[str]:
    parts: list[str] = []
    for part in path.split('/'):
        if part == '..':
            parts.pop()
        elif part != '.':
            parts.append(part)
    return parts
