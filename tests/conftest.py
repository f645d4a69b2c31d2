"""Tests run side by side: one thread each, so that they do not wait for one another's processors.

No test asserts a speed, so property tests have no time limit per example.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests marked `gpu` run without it
    pass
else:
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=0.0,
        help="time of tests/fuzz in all; default: one round of each test",
    )
