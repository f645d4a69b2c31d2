"""HTML report on one clip: its data, collected as plain values, and its rendering as one page."""

from makermark.examination.report.collect import ClipInfo, ReportData, collect_report_data
from makermark.examination.report.page import render_report

__all__ = ["ClipInfo", "ReportData", "collect_report_data", "render_report"]
