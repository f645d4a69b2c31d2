"""Table 1 of Koutsianos et al. 2025 (Synthetic Speech Source Tracing using Metric Learning), run again.

cells.py: the paper's figures, and the experiment that each asks for. holding.py: whether it has been run already.
queueing.py: what is left for DVC's queue. report.py: theirs beside ours.
"""

from makermark.table1.cells import narrowed, paper
from makermark.table1.queueing import found_in, refuse_unready, wanted_in
from makermark.table1.report import Row, write_report

__all__ = [
    "Row",
    "found_in",
    "narrowed",
    "paper",
    "refuse_unready",
    "wanted_in",
    "write_report",
]
