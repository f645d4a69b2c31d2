"""Results for people: tables, pictures, and the files that `dvc plots` reads."""

from makermark.reporting.confusion import plot_confusion
from makermark.reporting.curves import plot_det, plot_histograms, plot_training
from makermark.reporting.dvc_plots import write_confusion, write_det, write_history
from makermark.reporting.map import plot_map
from makermark.reporting.tables import results_markdown, results_table

__all__ = [
    "plot_confusion",
    "plot_det",
    "plot_histograms",
    "plot_map",
    "plot_training",
    "results_markdown",
    "results_table",
    "write_confusion",
    "write_det",
    "write_history",
]
