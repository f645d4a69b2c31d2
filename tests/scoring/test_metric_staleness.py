"""Adding an open-set metric changes one file and makes only the stages stale that compute open-set metrics."""

from staleness_support import copy_up_to_date, stale_stages

METRICS_FILE = "src/makermark/scoring/open_set_metrics.py"
DUMMY_METRIC = '''def dummy(trials: OpenSetTrials) -> float:
    """Return the share of known utterances."""
    return float(trials.is_known.mean())


METRICS: dict[str'''


def test_new_open_set_metric_makes_score_and_its_users_stale_and_no_model(tmp_path):
    project = copy_up_to_date(tmp_path)
    file = project / METRICS_FILE
    source = file.read_text()
    changed = source.replace("METRICS: dict[str", DUMMY_METRIC, 1)
    changed = changed.replace('    "eerc": eerc,\n', '    "eerc": eerc,\n    "dummy": dummy,\n', 1)
    assert changed.count("dummy") == 3
    file.write_text(changed)
    assert stale_stages(project) == {"score", "fuse", "calibrate"}
