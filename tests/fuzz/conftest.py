"""The share of a fuzz test in the time of `python -m pytest tests/fuzz --fuzz-minutes 10`."""

import pytest


@pytest.fixture
def fuzz_seconds(request):
    tests = sum(item.path == request.path for item in request.session.items)
    return 60 * request.config.getoption("--fuzz-minutes") / tests
