"""Report: a run, or several side by side, as one HTML page that needs no network."""

from coinfer.report.comparison import write_comparison_report
from coinfer.report.page import chart_library
from coinfer.report.writing import write_report

__all__ = ["chart_library", "write_comparison_report", "write_report"]
