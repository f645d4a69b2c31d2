"""Table 1 of Koutsianos et al. 2025 (Synthetic Speech Source Tracing using Metric Learning), reproduced.

- paper_table.py: the figures of the paper, and the experiment of each cell
- runs.py: the experiments to run, and whether one has been run
- report.py: the figures of the paper beside ours
"""
