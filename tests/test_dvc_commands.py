"""What DVC's own commands show: status, plots, metrics and changed params."""

import difflib
import json
from pathlib import Path

import pytest

from makermark.experiments import presets
from makermark.experiments.presets import PRESETS, preset
from makermark.training.curves import write_curves
from staleness_support import copy_up_to_date, drawn_points, run_command, run_dvc, stale_stages

pytest.importorskip("dvc", reason="the pipeline extra is not installed")

REPOSITORY = Path(__file__).parents[1]
HISTORY = [
    {"epoch": 1, "loss": 2.5, "learning_rate": 0.001},
    {"epoch": 2, "loss": 1.25, "learning_rate": 0.001, "dev_eer_percent": 12.5},
    {"epoch": 3, "loss": 0.75, "learning_rate": 0.0005},
    {"epoch": 4, "loss": 0.5, "learning_rate": 0.0001, "dev_eer_percent": 6.25},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the repository in which every stage is up to date, with real curves and a real headline."""
    project = copy_up_to_date(tmp_path_factory.mktemp("dvc"))
    write_curves(project / "plots/train", HISTORY)
    headline = (REPOSITORY / "metrics/headline.json").read_text()
    (project / "metrics/headline.json").write_text(headline)
    run_dvc(project, "commit", "--force")
    for command in (["add", "-A"], ["commit", "--quiet", "--message", "all"]):
        run_command(project, "git", "-c", "user.name=x", "-c", "user.email=x@y.z", *command)
    return project


def test_status_reports_nothing_if_nothing_is_wrong(project):
    assert run_dvc(project, "status").strip() == "Data and pipelines are up to date."
    assert run_dvc(project, "data", "status").strip() == "No changes."


@pytest.mark.parametrize("stage", ["robustness", "foreign"])
def test_conditional_stage_exists_only_if_params_ask_for_it(project, stage):
    stages = run_dvc(project, "stage", "list", "--name-only").split()
    assert "headline" in stages
    assert f"{stage}@run" not in stages
    path = project / "params.yaml"
    before = path.read_text()
    try:
        set_params(path, f"{stage}.stage=[run]")
        assert run_dvc(project, "stage", "list", "--name-only").split() == [*stages, f"{stage}@run"]
        assert stale_stages(project) == {f"{stage}@run"}
    finally:
        path.write_text(before)


def test_training_curves_are_drawn_with_every_epoch_that_has_the_metric(project):
    points = drawn_points(project, "plots/train/loss.csv", "plots/train/dev_eer.csv")
    loss = [(int(p["epoch"]), float(p["loss"])) for p in points["plots/train/loss.csv"]]
    assert loss == [(epoch["epoch"], epoch["loss"]) for epoch in HISTORY]
    eer = [(int(p["epoch"]), float(p["dev_eer_percent"])) for p in points["plots/train/dev_eer.csv"]]
    assert eer == [(2, 12.5), (4, 6.25)]


def test_experiments_are_compared_by_a_dozen_metrics(project):
    shown = json.loads(run_dvc(project, "exp", "show", "--json"))
    files = shown[0]["data"]["metrics"]
    assert list(files) == ["metrics/headline.json"]
    assert files["metrics/headline.json"]["data"]["dev"]["eer_micro_percent"] > 0
    header = run_dvc(project, "metrics", "show", "--md").splitlines()[0]
    assert header.count("|") - 2 == 13  # the path, and the metrics


def set_params(path, *overrides):
    """Change params as `dvc exp run -S` does."""
    from dvc.utils.hydra import apply_overrides

    apply_overrides(str(path), list(overrides))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "override",
    ["seed=7", "loss=softmax", "train.epochs=3", "losses.ge2e.scale=20.5", "external.root=audio"],
)
def test_set_param_changes_one_line_of_params_yaml(name, override, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "read_base", lambda: (REPOSITORY / "params.yaml").read_text())
    before, path = preset(name), tmp_path / "params.yaml"
    path.write_text(before)
    set_params(path, override)
    changes = list(difflib.ndiff(before.splitlines(), path.read_text().splitlines()))
    added, removed = ([line for line in changes if line.startswith(sign)] for sign in ("+ ", "- "))
    assert (len(added), len(removed)) == (1, 1), added + removed
    assert override.split("=")[1] in added[0]
