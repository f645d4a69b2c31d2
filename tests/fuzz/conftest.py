"""The share of a fuzz test in the time of `python -m pytest tests/fuzz --fuzz-minutes 10`."""

import mutation
import pytest


@pytest.fixture
def fuzz(request):
    """Return the function that runs a check on damaged files for the share of this test."""
    tests = sum(item.path == request.path for item in request.session.items)
    seconds = 60 * request.config.getoption("--fuzz-minutes") / tests

    def run(check):
        rounds = mutation.fuzz(check, seconds=seconds, first_round=request.config.getoption("--fuzz-seed"))
        request.node.user_properties.append(("damaged inputs", rounds * mutation.EXAMPLES))
        return rounds

    return run


def pytest_terminal_summary(terminalreporter):
    """Print the number of damaged inputs."""
    reports = [report for part in terminalreporter.stats.values() for report in part]
    counts = [
        count
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, count in report.user_properties
        if name == "damaged inputs"
    ]
    if counts:
        terminalreporter.write_line(f"{sum(counts)} damaged inputs in {len(counts)} tests")
