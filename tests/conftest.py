"""Tests run side by side: one thread each, so that they do not wait for one another's processors.

No test asserts a speed, so property tests have no time limit per example.
"""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests marked `gpu` run without it
    pass
else:
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


# The files that take longest, the slowest first. Each file runs in one worker (`--dist loadfile`), so that its fixtures
# are made once; a long file that starts last would leave the other worker idle.
SLOW_FILES = (
    "test_pipeline.py",
    "experiments/table1/test_queue.py",
    "corpora/local/test_local.py",
    "foundation/tracking/test_tracking.py",
    "models/backbones/test_wav2vec2_aasist.py",
    "scoring/pairs/test_read_only_install.py",
    "test_wheel.py",
    "training/test_ssl_training.py",
    "test_benchmark_scale.py",
    "reporting/test_umap_projection.py",
    "experiments/test_cross_corpus.py",
)


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    positions = {folder / name: number for number, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: positions.get(item.path, len(positions)))


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=0.0,
        help="time of tests/fuzz in all; default: one round of each test",
    )
    parser.addoption(
        "--fuzz-seed",
        type=int,
        default=0,
        help="number of the first round of each test of tests/fuzz: from another number, other changes are drawn",
    )
