"""Where the benchmarks write: files below ``results/``, and tables in pages of the documentation."""

from pathlib import Path

RESULTS = Path(__file__).resolve().parent / 'results'
REPOSITORY = RESULTS.parents[1]


def replace_between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a file.

    Raises:
        ValueError: The file lacks the marks.
    """
    content = path.read_text()
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    if content.count(start) != 1 or content.count(end) != 1:
        raise ValueError(f'{path} needs one {start} and one {end}')
    head, rest = content.split(start)
    _, tail = rest.split(end)
    path.write_text(f'{head}{start}\n{text}\n{end}{tail}')
