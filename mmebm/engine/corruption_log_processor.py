"""The log of an evaluation by corruption, as a table."""

import io
from collections.abc import Mapping

from mmengine.runner import LogProcessor, Runner
from rich import box
from rich.console import Console
from rich.table import Table

from mmebm.evaluation.restoration_metric import split_key
from mmebm.registry import LOG_PROCESSORS

# In characters. Wide enough for any table: a terminal may wrap its lines, a log file must not lose a part of them.
MAX_WIDTH = 1000


@LOG_PROCESSORS.register_module()
class CorruptionLogProcessor(LogProcessor):
    """Logs metrics ``<metric>/<corruption>/<number>`` as a table with a column per corruption, others as usual.

    What else reads metrics, as JSON logs and visualizers, gets the same as ever. Arguments are mmengine's.
    """

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """The values of an evaluation by name, and as text."""
        tag, text = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        by_corruption, others = {}, {}
        for key, value in tag.items():
            name = self._remove_prefix(key, f'{mode}/')
            is_by_corruption = name.count('/') >= 2 and isinstance(value, float)
            (by_corruption if is_by_corruption else others)[name] = value
        if not by_corruption:
            return tag, text
        start = text.partition('  ')[0]  # Epoch(val) [1][8/8]
        values = [
            f'{name}: {value:.{self.num_digits}f}' if isinstance(value, float) else f'{name}: {value}'
            for name, value in others.items()
        ]
        return tag, '\n'.join(['  '.join([start, *values]), table(by_corruption)])


def table(metrics: Mapping[str, float]) -> str:
    """A row per metric and number, a column per corruption.

    Args:
        metrics: Values by ``<metric>/<corruption>/<number>``.
    """
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        metric, corruption, number = split_key(key)
        rows.setdefault(f'{metric}/{number}', {})[corruption] = value
    corruptions = sorted({corruption for row in rows.values() for corruption in row})
    shown = Table('', box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for corruption in corruptions:
        shown.add_column(corruption, justify='right')
    for name, row in rows.items():
        cells = (f'{row[corruption]:.4g}' if corruption in row else '-' for corruption in corruptions)
        shown.add_row(name, *cells)
    console = Console(file=io.StringIO(), width=MAX_WIDTH, color_system=None, force_terminal=False)
    console.print(shown, markup=False)
    return console.file.getvalue().rstrip('\n')  # type: ignore[attr-defined]
