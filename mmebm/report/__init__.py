"""One self-contained HTML file that shows what trainings did."""

from mmebm.report.page import write_report

__all__ = ['write_report']
