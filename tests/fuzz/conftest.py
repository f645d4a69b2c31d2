"""The share of a fuzz test in the time of `python -m pytest tests/fuzz --fuzz-minutes 10`."""

from functools import partial

import mutation
import pytest


@pytest.fixture
def fuzz(request):
    """Return the function that runs a check on damaged files for the share of this test."""
    tests = sum(item.path == request.path for item in request.session.items)
    seconds = 60 * request.config.getoption("--fuzz-minutes") / tests
    return partial(mutation.fuzz, seconds=seconds, first_round=request.config.getoption("--fuzz-seed"))
