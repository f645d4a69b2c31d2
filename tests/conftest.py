"""Tests run side by side: one thread each, so that they do not wait for one another's processors."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
