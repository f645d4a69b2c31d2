"""Results for people: tables, pictures, and the files that `dvc plots` reads."""

from makermark.reporting.confusion import plot_confusion
from makermark.reporting.curves import plot_det, plot_histograms, plot_training
from makermark.reporting.detectors import plot_detectors
from makermark.reporting.distances import plot_distances
from makermark.reporting.dvc_plots import write_confusion, write_det, write_history
from makermark.reporting.map import plot_map
from makermark.reporting.scores import draw_detectors, draw_pairs
from makermark.reporting.tables import open_set_lines, results_markdown, results_table, tracer_line

__all__ = [
    "draw_detectors",
    "draw_pairs",
    "open_set_lines",
    "plot_confusion",
    "plot_det",
    "plot_detectors",
    "plot_distances",
    "plot_histograms",
    "plot_map",
    "plot_training",
    "results_markdown",
    "results_table",
    "tracer_line",
    "write_confusion",
    "write_det",
    "write_history",
]
